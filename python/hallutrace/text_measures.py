"""Measures that compare an answer with the references of its question, by their text.

Words are compared after a normalisation (:mod:`hallutrace.normalization`), and the best score over
the references counts. A reference that normalises to nothing (``The``, ``!!``) matches no answer;
in TriviaQA's script it would match an empty one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from hallutrace.errors import InputError
from hallutrace.normalization import DEFAULT, NORMALIZATIONS, Normalize


def normalize(text: str, normalization: str = DEFAULT) -> str:
    """A text as its words, with single spaces between them.

    Args:
        text: any text.
        normalization: ``unicode`` or ``triviaqa``.

    Raises:
        InputError: another normalisation.

    Example:
        >>> normalize("The “Eiffel Tower”!")
        'eiffel tower'
    """
    return _rule(normalization)(text)


def comparable(references: Iterable[str], normalization: str = DEFAULT) -> list[str]:
    """The references as they are compared: normalised, without duplicates and empty ones.

    Example:
        >>> comparable(["Paris", "paris!", "The"])
        ['paris']
    """
    rule = _rule(normalization)
    return [words for words in dict.fromkeys(map(rule, references)) if words]


def _rule(normalization: str) -> Normalize:
    if normalization not in NORMALIZATIONS:
        raise InputError(
            f"Expected one of {', '.join(NORMALIZATIONS)}, got {normalization!r} - "
            "change --normalize"
        )
    return NORMALIZATIONS[normalization][1]


def exact(answer: str, references: Iterable[str], normalization: str = DEFAULT) -> bool:
    """Whether the answer is one of the references, after normalisation.

    Source:
        Joshi et al. 2017, TriviaQA, evaluation script (exact match, best over aliases).

    Example:
        >>> exact("Paris.", ["paris", "Paris, France"])
        True
    """
    return _best(_is_same, answer, references, normalization) == 1


def contains(answer: str, references: Iterable[str], normalization: str = DEFAULT) -> bool:
    """Whether the answer contains one of the references as whole words, after normalisation.

    Args:
        answer: of the model.
        references: right answers; one that normalises to nothing never matches.
        normalization: ``unicode`` or ``triviaqa``.

    Returns:
        True if any reference is in the answer.

    Source: ours.

    Example:
        >>> contains("It is in Paris, France.", ["Paris"]), contains("A parish", ["Paris"])
        (True, False)
    """
    return _best(_contains_words, answer, references, normalization) == 1


def f1(answer: str, references: Iterable[str], normalization: str = DEFAULT) -> float:
    """Harmonic mean of the shares of shared words in answer and reference, best over references.

    Returns:
        0 to 1; words are counted as often as they occur, in any order.

    Source:
        Joshi et al. 2017, TriviaQA, evaluation script (F1, best over aliases).

    Example:
        >>> f1("Paris in France", ["Paris"])
        0.5
    """
    return _best(_word_f1, answer, references, normalization)


def rouge_l(answer: str, references: Iterable[str], normalization: str = DEFAULT) -> float:
    """ROUGE-L: F-measure of the longest common subsequence of words, best over references.

    Returns:
        0 to 1: 2 L / (words of the answer + words of the reference), which is beta = 1.

    Source:
        Lin 2004, ROUGE, section 3. Words are those of :func:`normalize`, so that other scripts
        than Latin count; the package ``rouge_score`` takes runs of ``[a-z0-9]`` and keeps
        articles.

    Example:
        >>> rouge_l("one two three four", ["one three"])
        0.6666666666666666
    """
    return _best(_rouge_l, answer, references, normalization)


Measure = Callable[[str, str], float]
"""Score of a normalised answer against one normalised reference that is not empty."""


def _best(measure: Measure, answer: str, references: Iterable[str], normalization: str) -> float:
    score = _best_of(measure, answer, references, normalization)
    return 0.0 if score is None else score


def _best_of(
    measure: Measure, answer: str, references: Iterable[str], normalization: str
) -> float | None:
    """Best over the references; None where none is left after normalisation."""
    words = normalize(answer, normalization)
    rights = comparable(references, normalization)
    return max((measure(words, right) for right in rights), default=None)


def _is_same(answer: str, right: str) -> float:
    return float(answer == right)


def _contains_words(answer: str, right: str) -> float:
    return float(f" {right} " in f" {answer} ")


def _word_f1(answer: str, right: str) -> float:
    words, rights = answer.split(), right.split()
    shared = sum((Counter(words) & Counter(rights)).values())
    return 2 * shared / (len(words) + len(rights))


def _rouge_l(answer: str, right: str) -> float:
    words, rights = answer.split(), right.split()
    return 2 * common_length(words, rights) / (len(words) + len(rights))


def common_length(left: Sequence[str], right: Sequence[str]) -> int:
    """Length of the longest common subsequence of two lists of words.

    A row of the usual table is the bits of one integer, zero where the table grows, so a word of
    ``right`` costs a few operations on ``len(left)`` bits: two texts of 10,000 words take about ten
    milliseconds; the table itself would take a minute.

    Source:
        Hyyrö 2004, Bit-parallel LCS-length computation revisited, section 3.

    Example:
        >>> common_length(["a", "b", "c", "d"], ["b", "x", "d"])
        2
    """
    positions: dict[str, int] = {}
    for index, word in enumerate(left):
        positions[word] = positions.get(word, 0) | 1 << index
    every = (1 << len(left)) - 1
    row = every
    for word in right:
        if matches := row & positions.get(word, 0):
            row = (row + matches | row - matches) & every
    return len(left) - row.bit_count()


class Judge(Protocol):
    """A class that scores answers: higher means more likely right.

    :class:`WordJudge` compares words; a judge model is another class with these attributes.

    Attributes:
        name: of the protocol, and of its labels unless another is given.
        threshold: an answer is right if its score is at least that.
        is_graded: whether there are scores between 0 and 1, so that a threshold is a choice.
        facts: everything else that scores depend on, JSON-able; stored with the labels.
    """

    @property
    def name(self) -> str:
        """Of the protocol."""

    @property
    def threshold(self) -> float:
        """An answer is right if its score is at least that."""

    @property
    def is_graded(self) -> bool:
        """Whether there are scores between 0 and 1."""

    @property
    def facts(self) -> dict[str, Any]:
        """Everything else that scores depend on, JSON-able."""

    def score(self, question: str, answer: str, references: Sequence[str]) -> float | None:
        """The score of an answer, finite; None where it cannot be judged."""


@dataclass(frozen=True)
class WordJudge:
    """A judge that compares words with those of the references.

    Args:
        name: of the protocol.
        measure: score of a normalised answer against one normalised reference.
        threshold: an answer is right if its score is at least that.
        is_graded: whether there are scores between 0 and 1.
        normalization: ``unicode`` or ``triviaqa``.
    """

    name: str
    measure: Measure
    threshold: float = 0.5
    is_graded: bool = False
    normalization: str = DEFAULT

    @property
    def facts(self) -> dict[str, Any]:
        """Which normalisation, with the version of its rule."""
        return {"normalization": NORMALIZATIONS[self.normalization][0]}

    @property
    def label_name(self) -> str:
        """The default name of its labels."""
        of = "" if self.normalization == DEFAULT else f"-{self.normalization}"
        return f"{self.name}{of}"

    def score(self, question: str, answer: str, references: Sequence[str]) -> float | None:
        """Best over the references; None where no reference is left after normalisation."""
        return _best_of(self.measure, answer, references, self.normalization)


JUDGES: dict[str, WordJudge] = {
    judge.name: judge
    for judge in (
        WordJudge("exact", _is_same),
        WordJudge("contains", _contains_words),
        # Farquhar et al. 2024, Detecting hallucinations using semantic entropy (public code): an
        # answer is right if its F1 is at least .5. Ties are common, so "at least" matters.
        WordJudge("f1", _word_f1, threshold=0.5, is_graded=True),
        # Kuhn et al. 2023, Semantic uncertainty (public code): right if ROUGE-L is above .3; here,
        # as for F1, at least. Others take .5. Either calls a long answer wrong that has it right.
        WordJudge("rouge-l", _rouge_l, threshold=0.3, is_graded=True),
    )
}
"""Judges by the name of their protocol, with the normalisation that is the default."""


def find_judge(name: str, normalization: str = DEFAULT) -> WordJudge:
    """A judge by the name of its protocol, with a normalisation.

    Raises:
        InputError: no such protocol, or no such normalisation.

    Example:
        >>> find_judge("exact").score("Who?", "Paris", ["paris"])
        1.0
    """
    if name not in JUDGES:
        raise InputError(
            f"Expected one of {', '.join(JUDGES)}, got {name!r} - change --by, or name the file "
            "that registers it with --plugin FILE"
        )
    _rule(normalization)
    return replace(JUDGES[name], normalization=normalization)


def how_to_make(label_name: str) -> str | None:
    """Options of `hallutrace label` that make labels of this name; None for labels of a file.

    Example:
        >>> how_to_make("f1-triviaqa")
        '--by f1 --normalize triviaqa'
    """
    for normalization in NORMALIZATIONS:
        for name in JUDGES:
            if find_judge(name, normalization).label_name == label_name:
                of = "" if normalization == DEFAULT else f" --normalize {normalization}"
                return f"--by {name}{of}"
    return None
