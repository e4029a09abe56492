"""The rows of a table: detectors with their options, and the controls beside them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from hallutrace.detect.base import Detector
from hallutrace.detect.options import parse, read_texts
from hallutrace.detect.registry import find, names
from hallutrace.errors import HallutraceError, InputError
from hallutrace.option_names import parameter

CONTROLS = ("length", "question-only", "perplexity", "linear-probe")
"""Always in the table: a detector that does not beat them has shown nothing."""

QUICK_GRAPH_MODEL = "attention-gnn"

EDGE_CONTROLS = ("shuffled", "none")
"""Edges of the controls of a graph model: the same model on shuffled edges, and on none."""

_OUTSIDE_LISTS = re.compile(r",(?![^\[]*\])")
"""A comma that is in no ``[...]``."""


@dataclass(frozen=True)
class TableRow:
    """One detector of a table.

    Attributes:
        name: of the detector, as in the registry.
        options: the options that are given.
        is_requested: whether the user named it: if it cannot be evaluated, that is an error and not
            a remark under the table.
        control_of: label of the graph model that it is the control of.
    """

    name: str
    options: dict[str, Any] = field(default_factory=dict)
    is_requested: bool = False
    control_of: str | None = None

    @property
    def label(self) -> str:
        """Name and options, as the table has them.

        Examples:
            >>> TableRow("attention-gnn", {"edges": "none", "top_k": 8}).label
            'attention-gnn edges=none top_k=8'
        """
        return " ".join([self.name, *(f"{key}={_text(it)}" for key, it in self.options.items())])

    @property
    def is_control(self) -> bool:
        """Whether it is one of :data:`CONTROLS` with default options."""
        return self.name in CONTROLS and not self.options


def table_rows(detectors: str | Sequence[str], quick: bool = False) -> tuple[TableRow, ...]:
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

    Examples:
        >>> [row.label for row in table_rows("scalars")]
        ['length', 'question-only', 'perplexity', 'scalars', 'linear-probe']
    """
    texts = _OUTSIDE_LISTS.split(detectors) if isinstance(detectors, str) else list(detectors)
    rows: list[TableRow] = []
    for text in (one.strip() for one in texts):
        if text == "all":
            rows += [TableRow(name) for name in names() if not quick or _is_quick(name)]
        else:
            rows.append(_parsed(text))
    if len({row.label for row in rows}) < len(rows):
        raise InputError(
            f"Expected each detector once, got {', '.join(texts)} - change {parameter('detectors')}"
        )
    labels = {row.label for row in rows}
    rows += [TableRow(name) for name in CONTROLS if name not in labels]
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


def _parsed(text: str) -> TableRow:
    name, *pairs = text.split(":")
    row = TableRow(name, parse_options(name, pairs, parameter("detectors")), is_requested=True)
    parse(find(name).Options, row.options, name)  # refuses what they cannot be
    return row


def _edge_controls(row: TableRow) -> list[TableRow]:
    kind = _found(row.name)
    if kind is None or not kind.is_graph:
        return []
    if "edges" in row.options or "edges" not in kind.Options.model_fields:
        return []
    return [
        TableRow(row.name, {**row.options, "edges": edges}, row.is_requested, row.label)
        for edges in EDGE_CONTROLS
    ]


def _is_quick(name: str) -> bool:
    kind = _found(name)
    return name == QUICK_GRAPH_MODEL or kind is None or not kind.seeded


def _found(name: str) -> type[Detector] | None:
    """The class of a detector; None of one that cannot be imported, whose row then says why."""
    try:
        return find(name)
    except HallutraceError:
        return None


def _text(value: Any) -> str:
    return value if isinstance(value, str) else str(value).lower()
