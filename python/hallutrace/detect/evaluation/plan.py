"""What is evaluated: which detectors with which options, on which folds, with which seeds."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from hallutrace.detect.options import read_texts
from hallutrace.detect.registry import find, make, names
from hallutrace.errors import InputError

CONTROLS = ("length", "question-only", "perplexity", "linear-probe")
"""Always in the table: what a detector has to beat to have shown anything."""

QUICK_GRAPH_MODEL = "attention-gnn"

EDGES = ("shuffled", "none")
"""What a graph model is shown beside: its own kind on edges that mean nothing, or on none."""

SeedsOn = Literal["all", "spread"]

_OUTSIDE_LISTS = re.compile(r",(?![^\[]*\])")
"""A comma that is in no ``[...]``."""


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        name: of the detector, as in the registry.
        options: of it, those that are given.
        is_asked: named by the caller: what it lacks is an error, not a remark in the table.
        of: label of the graph model that this one is the control of.
    """

    name: str
    options: dict[str, Any] = field(default_factory=dict)
    is_asked: bool = False
    of: str | None = None

    @property
    def label(self) -> str:
        """Name and options, as the table has them."""
        return " ".join([self.name, *(f"{key}={_text(it)}" for key, it in self.options.items())])

    @property
    def is_control(self) -> bool:
        """Whether it is one of :data:`CONTROLS` as it comes."""
        return self.name in CONTROLS and not self.options


@dataclass(frozen=True)
class Plan:
    """An evaluation, as far as it does not depend on the run.

    Attributes:
        rows: of the table, in its order.
        folds: how many splits.
        seeds: how many of those detectors whose result depends on one.
        seeds_on: ``all``: each seed scores every fold; ``spread``: fold k takes the seed k mod
            ``seeds``, so that there are as many fits as folds.
        split_seed: of the splits.
        draws: of the bootstrap.
        level: of intervals.
        shuffle_labels: the seed with which labels were shuffled among the groups, a check of the
            protocol itself; None where they are what they were.
    """

    rows: tuple[Row, ...]
    folds: int = 5
    seeds: int = 3
    seeds_on: SeedsOn = "all"
    split_seed: int = 0
    draws: int = 2000
    level: float = 0.95
    shuffle_labels: int | None = None

    def __post_init__(self) -> None:
        good = {
            "seeds >= 1": self.seeds >= 1,
            "draws >= 100": self.draws >= 100,
            "level above 0 and below 1": 0 < self.level < 1,
            "seeds_on all or spread": self.seeds_on in ("all", "spread"),
        }
        if wrong := [what for what, is_good in good.items() if not is_good]:
            name = wrong[0].split()[0]
            raise InputError(
                f"Expected {wrong[0]}, got {getattr(self, name)} - change --"
                f"{name.replace('_', '-')}"
            )

    def series(self, row: Row, folds: int) -> list[list[int]]:
        """The seed of each fold, for each series of scores that a row gets; [series][folds]."""
        if not find(row.name).seeded:
            return [[0] * folds]
        if self.seeds_on == "spread":
            return [[fold % self.seeds for fold in range(folds)]]
        return [[seed] * folds for seed in range(self.seeds)]


@dataclass(frozen=True)
class Job:
    """One detector fitted on one fold with one seed."""

    row: Row
    fold: int
    seed: int

    def __str__(self) -> str:
        return f"{self.row.label}, fold {self.fold + 1}, seed {self.seed}"


def jobs(plan: Plan, rows: Sequence[Row], folds: int) -> list[Job]:
    """All fits that a table needs, row by row, so that what one row caches is used at once."""
    found: dict[tuple[int, int, int], Job] = {}
    for number, row in enumerate(rows):
        for seeds in plan.series(row, folds):
            for fold, seed in enumerate(seeds):
                found[number, seed, fold] = Job(row, fold, seed)
    return list(found.values())


def table_rows(detectors: str | Sequence[str], quick: bool = False) -> tuple[Row, ...]:
    """The rows of a table: the detectors asked for, the controls, and graph models' own controls.

    Args:
        detectors: names with commas between them; ``NAME:option=value:option=[value,value]`` gives
            options, and ``all`` stands for all names.
        quick: of ``all``, leave out what takes long: of those whose result depends on a seed, only
            ``attention-gnn`` stays.

    Returns:
        In the order of the registry; the same detector with other options after it.

    Raises:
        InputError: no such detector, options that it does not know, or the same twice.
        MissingExtraError: a package that a detector's module needs is not installed.
    """
    asked = _OUTSIDE_LISTS.split(detectors) if isinstance(detectors, str) else list(detectors)
    rows: list[Row] = []
    for text in (one.strip() for one in asked):
        if text == "all":
            rows += [Row(name) for name in names() if not quick or _is_quick(name)]
        else:
            rows.append(_parsed(text))
    if len({row.label for row in rows}) < len(rows):
        raise InputError(
            f"Expected each detector once, got {', '.join(asked)} - change --detectors"
        )
    there = {row.label for row in rows}
    rows += [Row(name) for name in CONTROLS if name not in there]
    rows.sort(key=lambda row: names().index(row.name))
    return tuple(one for row in rows for one in (row, *_edge_controls(row)))


def parse_options(name: str, pairs: Sequence[str], where: str) -> dict[str, Any]:
    """Options of a detector from ``option=value``.

    Values are read as :func:`hallutrace.detect.options.read_texts` does.

    Args:
        name: of the detector.
        pairs: texts of that form.
        where: the option of the command line that they come from.

    Raises:
        InputError: text of another form, or no such detector.
    """
    texts = {}
    for pair in pairs:
        option, equals, value = pair.partition("=")
        if not (equals and option):
            raise InputError(f"Expected name=value, got {pair!r} - change {where}")
        texts[option] = value
    return read_texts(find(name).Options, texts)


def _parsed(text: str) -> Row:
    name, *pairs = text.split(":")
    row = Row(name, parse_options(name, pairs, "--detectors"), is_asked=True)
    make(name, **row.options)  # refuses what its options cannot be
    return row


def _edge_controls(row: Row) -> list[Row]:
    kind = find(row.name)
    if not kind.is_graph or "edges" in row.options or "edges" not in kind.Options.model_fields:
        return []
    return [
        Row(row.name, {**row.options, "edges": edges}, row.is_asked, row.label) for edges in EDGES
    ]


def _is_quick(name: str) -> bool:
    return name == QUICK_GRAPH_MODEL or not find(name).seeded


def _text(value: Any) -> str:
    return value if isinstance(value, str) else str(value).lower()
