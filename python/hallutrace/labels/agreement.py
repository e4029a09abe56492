"""Comparison of labelling protocols: how often they agree, and the traces on which they do not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from hallutrace.errors import InputError
from hallutrace.escaping import command
from hallutrace.store.label_files import Key, TraceLabel, counts_of, read_rows
from hallutrace.store.reader import TraceStore, open_run

SHOWN = 20  # traces of those that protocols disagree on
Tables = dict[str, dict[Key, TraceLabel]]
"""The labels of each trace, by protocol."""


@dataclass(frozen=True)
class Pair:
    """Two protocols, on the traces that both have labelled 0 or 1.

    Attributes:
        names: of the two.
        traces: how many both have labelled 0 or 1.
        disagreements: how many of them have different labels.
        kappa: Cohen's kappa; None where it is not defined: without such traces, or where both give
            all of them the same label.
    """

    names: tuple[str, str]
    traces: int
    disagreements: int
    kappa: float | None


@dataclass(frozen=True)
class Disputed:
    """A trace that protocols disagree on.

    Attributes:
        id: of the question.
        sample: which answer of its question.
        question: the text.
        answer: of the model.
        references: right answers.
        labels: by protocol: 1 hallucinated, 0 right, None neither.
        scores: by protocol; None where there is none.
    """

    id: str
    sample: int
    question: str
    answer: str
    references: list[str]
    labels: dict[str, int | None]
    scores: dict[str, float | None]


@dataclass(frozen=True)
class Agreement:
    """Comparison of protocols.

    Attributes:
        traces: of the run.
        counts: by protocol: traces, hallucinated, right, dropped, unjudged, and ``unlabelled``,
            which are traces that it has no row of.
        pairs: all pairs of protocols.
        disputed: how many traces have different labels in at least two protocols.
        examples: those that most pairs disagree on, ties in the run's order; 20 at most.
    """

    traces: int
    counts: dict[str, dict[str, int]]
    pairs: list[Pair]
    disputed: int
    examples: list[Disputed]

    def to_json(self) -> dict[str, Any]:
        """The fields by name."""
        return asdict(self)


def agreement(run: str | Path, names: Sequence[str] = ()) -> Agreement:
    """Compares the labelling protocols of a run.

    Args:
        run: its folder.
        names: of at least two protocols; all that the run has labels of unless given.

    Raises:
        InputError: fewer than two, one of them twice, or one that the run has no labels of.
        DamagedError: labels that are damaged.

    Examples:
        >>> from hallutrace.labels import label
        >>> _ = label(run, "exact")
        >>> [pair.names for pair in agreement(run, ["contains", "exact"]).pairs]
        [('contains', 'exact')]
    """
    with open_run(run) as store:
        chosen = list(names) or store.labels()
        if len(set(chosen)) < 2 or len(set(chosen)) < len(chosen):
            raise InputError(
                f"Expected at least two labels to compare, each once, got "
                f"{', '.join(chosen) or 'none'} of {run} - make others with "
                f"`{command('hallutrace', 'label', Path(run), '--by', 'PROTOCOL')}`"
            )
        keys = store.keys()
        tables = {name: read_rows(store.folder, name) for name in chosen}
        counts = {name: _counts(keys, rows) for name, rows in tables.items()}
        pairs = [_pair(keys, one, other, tables) for one, other in combinations(chosen, 2)]
        order = _disputed(keys, tables)
        examples = [_example(store, at, keys[at], tables) for at in order[:SHOWN]]
    return Agreement(len(keys), counts, pairs, len(order), examples)


def cohen_kappa(one: Sequence[int], other: Sequence[int]) -> float | None:
    """Agreement of two lists of labels 0 and 1 beyond chance.

    Args:
        one: labels of the first.
        other: labels of the second, of the same things.

    Returns:
        (p_o - p_e) / (1 - p_e); None where p_e is 1, or for empty lists.

    Source:
        Cohen 1960, A coefficient of agreement for nominal scales.

    Examples:
        >>> cohen_kappa([0, 0, 1, 1], [0, 1, 1, 1])
        0.5
    """
    total = len(one)
    same = sum(left == right for left, right in zip(one, other, strict=True))
    ones, others = sum(one), sum(other)
    # In whole numbers until the end: p_o = same / total, p_e = by_chance / total².
    by_chance = ones * others + (total - ones) * (total - others)
    if by_chance == total * total:
        return None
    return (same * total - by_chance) / (total * total - by_chance)


def _counts(keys: Sequence[Key], rows: dict[Key, TraceLabel]) -> dict[str, int]:
    counts = counts_of(rows[key] for key in keys if key in rows)
    return counts | {"unlabelled": len(keys) - counts["traces"]}


def _pair(keys: Sequence[Key], one: str, other: str, tables: Tables) -> Pair:
    left, right = [], []
    for key in keys:
        first, second = _label(tables[one], key), _label(tables[other], key)
        if first is not None and second is not None:
            left.append(first)
            right.append(second)
    apart = sum(first != second for first, second in zip(left, right, strict=True))
    return Pair((one, other), len(left), apart, cohen_kappa(left, right))


def _disputed(keys: Sequence[Key], tables: Tables) -> list[int]:
    """Indices of traces that protocols label differently, those with most such pairs first."""
    found = []
    for at, key in enumerate(keys):
        labels = [label for rows in tables.values() if (label := _label(rows, key)) is not None]
        if pairs := sum(labels) * (len(labels) - sum(labels)):
            found.append((-pairs, at))
    return [at for _, at in sorted(found)]


def _label(rows: dict[Key, TraceLabel], key: Key) -> int | None:
    row = rows.get(key)
    return None if row is None else row.label


def _example(store: TraceStore, at: int, key: Key, tables: Tables) -> Disputed:
    trace = store[at]
    found = {name: rows.get(key, TraceLabel(None, None)) for name, rows in tables.items()}
    return Disputed(
        id=key[0],
        sample=key[1],
        question=trace.question,
        answer=trace.answer,
        references=trace.references,
        labels={name: row.label for name, row in found.items()},
        scores={name: row.score for name, row in found.items()},
    )
