"""The options of an evaluation, and the fits that they ask for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from hallutrace.detect.evaluation.rows import TableRow
from hallutrace.detect.registry import find
from hallutrace.errors import InputError
from hallutrace.option_names import parameter

SeedsOn = Literal["all", "spread"]


@dataclass(frozen=True)
class EvaluationOptions:
    """What is evaluated, and how.

    Attributes:
        rows: of the table, in its order.
        folds: number of splits.
        seeds: number of seeds of those detectors whose result depends on one.
        seeds_on: ``all``: each seed scores every fold; ``spread``: fold k takes the seed k mod
            ``seeds``, so that there are as many fits as folds.
        split_seed: seed of the splits and of the bootstrap.
        draws: of the bootstrap.
        level: of confidence intervals.
        shuffle_labels: seed by which labels were shuffled among the groups, a check of the protocol
            itself; None where they were not.

    Raises:
        InputError: a value out of range.
    """

    rows: tuple[TableRow, ...]
    folds: int = 5
    seeds: int = 3
    seeds_on: SeedsOn = "all"
    split_seed: int = 0
    draws: int = 2000
    level: float = 0.95
    shuffle_labels: int | None = None

    def __post_init__(self) -> None:
        is_good = {
            "seeds >= 1": self.seeds >= 1,
            "draws >= 100": self.draws >= 100,
            "level above 0 and below 1": 0 < self.level < 1,
            "seeds_on all or spread": self.seeds_on in ("all", "spread"),
        }
        for expected in (text for text, good in is_good.items() if not good):
            name = expected.split()[0]
            raise InputError(
                f"Expected {expected}, got {getattr(self, name)} - change {parameter(name)}"
            )

    def series(self, row: TableRow, folds: int) -> list[list[int]]:
        """The seed of each fold, for each series of scores of a row; [series][folds].

        Examples:
            >>> options = EvaluationOptions((), seeds=2)
            >>> options.series(TableRow("length"), 3), options.series(TableRow("mlp-probe"), 3)
            ([[0, 0, 0]], [[0, 0, 0], [1, 1, 1]])
        """
        if not find(row.name).seeded:
            return [[0] * folds]
        if self.seeds_on == "spread":
            return [[fold % self.seeds for fold in range(folds)]]
        return [[seed] * folds for seed in range(self.seeds)]

    def fits(self, rows: Sequence[TableRow], folds: int) -> list[Fit]:
        """All fits of some rows, row by row, so that cached features are used at once."""
        return [
            Fit(row, fold, seed)
            for row in rows
            for seeds in self.series(row, folds)
            for fold, seed in enumerate(seeds)
        ]


@dataclass(frozen=True)
class Fit:
    """One detector, fitted on one fold with one seed."""

    row: TableRow
    fold: int
    seed: int

    @property
    def key(self) -> tuple[str, int, int]:
        """Label of the row, fold and seed."""
        return self.row.label, self.fold, self.seed

    def __str__(self) -> str:
        return f"{self.row.label}, fold {self.fold + 1}, seed {self.seed}"
