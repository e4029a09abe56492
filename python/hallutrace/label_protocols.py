"""The labelling protocols of the package: a text measure and a threshold, by name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from hallutrace.errors import InputError
from hallutrace.escaping import command
from hallutrace.normalization import DEFAULT, NORMALIZATIONS
from hallutrace.option_names import parameter
from hallutrace.registry import to_register
from hallutrace.text_measures import (
    Measure,
    best_score,
    contains_words,
    is_same,
    normalization_rule,
    rouge_l_of_words,
    word_f1,
)


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
        return best_score(self.measure, answer, references, self.normalization)


JUDGES: dict[str, WordJudge] = {
    judge.name: judge
    for judge in (
        WordJudge("exact", is_same),
        WordJudge("contains", contains_words),
        # Farquhar et al. 2024, Detecting hallucinations using semantic entropy (public code): an
        # answer is right if its F1 is at least .5. Ties are common, so "at least" matters.
        WordJudge("f1", word_f1, threshold=0.5, is_graded=True),
        # Kuhn et al. 2023, Semantic uncertainty (public code): right if ROUGE-L is above .3; here,
        # as for F1, at least. Others take .5. Either calls a long answer wrong that has it right.
        WordJudge("rouge-l", rouge_l_of_words, threshold=0.3, is_graded=True),
    )
}
"""Judges by the name of their protocol, with the normalisation that is the default."""


def find_judge(name: str, normalization: str = DEFAULT) -> WordJudge:
    """A judge by the name of its protocol, with a normalisation.

    Raises:
        InputError: no such protocol, or no such normalisation.

    Examples:
        >>> find_judge("exact").score("Who?", "Paris", ["paris"])
        1.0
    """
    if name not in JUDGES:
        raise InputError(
            f"Expected one of {', '.join(JUDGES)}, got {name!r} - change {parameter('by')}, or "
            f"{to_register()}"
        )
    normalization_rule(normalization)
    return replace(JUDGES[name], normalization=normalization)


def how_to_make(run: Path, label_name: str) -> str:
    """The command that makes labels of this name.

    Examples:
        >>> how_to_make(Path("runs/nq"), "f1-triviaqa")
        'hallutrace label runs/nq --by f1 --normalize triviaqa'
    """
    for normalization in NORMALIZATIONS:
        for name in JUDGES:
            if find_judge(name, normalization).label_name != label_name:
                continue
            if normalization == DEFAULT:
                return command("hallutrace", "label", run, "--by", name)
            return command("hallutrace", "label", run, "--by", name, "--normalize", normalization)
    return command("hallutrace", "label", run, "--from", "FILE", "--name", label_name)
