"""Measures that compare an answer with the references of its question, by their text.

Words are compared after a normalisation (:mod:`hallutrace.normalization`), and the best score over
the references counts. A reference that normalises to nothing (``The``, ``!!``) matches no answer;
in TriviaQA's script it would match an empty one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from hallutrace.errors import InputError
from hallutrace.normalization import DEFAULT, NORMALIZATIONS, Normalize
from hallutrace.option_names import parameter


def normalize(text: str, normalization: str = DEFAULT) -> str:
    """A text as its words, with single spaces between them.

    Args:
        text: any text.
        normalization: ``unicode`` or ``triviaqa``.

    Raises:
        InputError: another normalisation.

    Examples:
        >>> normalize("The “Eiffel Tower”!")
        'eiffel tower'
    """
    return normalization_rule(normalization)(text)


def comparable(references: Iterable[str], normalization: str = DEFAULT) -> list[str]:
    """The references as they are compared: normalised, without duplicates and empty ones.

    Examples:
        >>> comparable(["Paris", "paris!", "The"])
        ['paris']
    """
    rule = normalization_rule(normalization)
    return [words for words in dict.fromkeys(map(rule, references)) if words]


def normalization_rule(normalization: str) -> Normalize:
    """The function of a normalisation, by its name.

    Raises:
        InputError: another normalisation.
    """
    if normalization not in NORMALIZATIONS:
        raise InputError(
            f"Expected one of {', '.join(NORMALIZATIONS)}, got {normalization!r} - change "
            f"{parameter('normalize')}"
        )
    return NORMALIZATIONS[normalization][1]


def exact(answer: str, references: Iterable[str], normalization: str = DEFAULT) -> bool:
    """Whether the answer is one of the references, after normalisation.

    Source:
        Joshi et al. 2017, TriviaQA, evaluation script (exact match, best over aliases).

    Examples:
        >>> exact("Paris.", ["paris", "Paris, France"])
        True
    """
    return _best(is_same, answer, references, normalization) == 1


def contains(answer: str, references: Iterable[str], normalization: str = DEFAULT) -> bool:
    """Whether the answer contains one of the references as whole words, after normalisation.

    Args:
        answer: of the model.
        references: right answers; one that normalises to nothing never matches.
        normalization: ``unicode`` or ``triviaqa``.

    Returns:
        True if any reference is in the answer.

    Source: ours.

    Examples:
        >>> contains("It is in Paris, France.", ["Paris"]), contains("A parish", ["Paris"])
        (True, False)
    """
    return _best(contains_words, answer, references, normalization) == 1


def f1(answer: str, references: Iterable[str], normalization: str = DEFAULT) -> float:
    """Harmonic mean of the shares of shared words in answer and reference, best over references.

    Returns:
        0 to 1; words are counted as often as they occur, in any order.

    Source:
        Joshi et al. 2017, TriviaQA, evaluation script (F1, best over aliases).

    Examples:
        >>> f1("Paris in France", ["Paris"])
        0.5
    """
    return _best(word_f1, answer, references, normalization)


def rouge_l(answer: str, references: Iterable[str], normalization: str = DEFAULT) -> float:
    """ROUGE-L: F-measure of the longest common subsequence of words, best over references.

    Returns:
        0 to 1: 2 L / (words of the answer + words of the reference), which is beta = 1.

    Source:
        Lin 2004, ROUGE, section 3. Words are those of :func:`normalize`, so that other scripts
        than Latin count; the package ``rouge_score`` takes runs of ``[a-z0-9]`` and keeps
        articles.

    Examples:
        >>> rouge_l("one two three four", ["one three"])
        0.6666666666666666
    """
    return _best(rouge_l_of_words, answer, references, normalization)


Measure = Callable[[str, str], float]
"""Score of a normalised answer against one normalised reference that is not empty."""


def _best(measure: Measure, answer: str, references: Iterable[str], normalization: str) -> float:
    score = best_score(measure, answer, references, normalization)
    return 0.0 if score is None else score


def best_score(
    measure: Measure, answer: str, references: Iterable[str], normalization: str
) -> float | None:
    """Best over the references; None where none is left after normalisation."""
    words = normalize(answer, normalization)
    rights = comparable(references, normalization)
    return max((measure(words, right) for right in rights), default=None)


def is_same(answer: str, right: str) -> float:
    """1 if a normalised answer is a normalised reference, else 0."""
    return float(answer == right)


def contains_words(answer: str, right: str) -> float:
    """1 if a normalised answer holds a normalised reference as whole words, else 0."""
    return float(f" {right} " in f" {answer} ")


def word_f1(answer: str, right: str) -> float:
    """F1 of the words that a normalised answer shares with a normalised reference."""
    words, rights = answer.split(), right.split()
    shared = sum((Counter(words) & Counter(rights)).values())
    return 2 * shared / (len(words) + len(rights))


def rouge_l_of_words(answer: str, right: str) -> float:
    """ROUGE-L of a normalised answer beside a normalised reference."""
    words, rights = answer.split(), right.split()
    return 2 * common_length(words, rights) / (len(words) + len(rights))


def common_length(left: Sequence[str], right: Sequence[str]) -> int:
    """Length of the longest common subsequence of two lists of words.

    A row of the usual table is the bits of one integer, zero where the table grows, so a word of
    ``right`` costs a few operations on ``len(left)`` bits: two texts of 10,000 words take about ten
    milliseconds; the table itself would take a minute.

    Source:
        Hyyrö 2004, Bit-parallel LCS-length computation revisited, section 3.

    Examples:
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
