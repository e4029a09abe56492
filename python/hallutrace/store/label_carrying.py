"""Labels that go along when runs are made of runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from hallutrace.store.label_files import (
    Key,
    TraceLabel,
    names,
    path_of,
    read_parameters,
    read_rows,
    write_labels,
)
from hallutrace.store.reader import TraceStore

Table = tuple[dict[Key, TraceLabel], dict[str, Any] | None]
"""Rows, and how they came about."""

Write = Callable[[TraceStore], None]
"""Writes the labels into the new run, once it is there."""


def carry_part(whole: TraceStore, chosen: Sequence[int]) -> Write:
    """Reads all labels of a run, for a part of it.

    Args:
        whole: the run.
        chosen: places of the traces that are taken.

    Raises:
        DamagedError: labels that cannot be trusted.
    """
    keys = whole.keys()
    wanted = [keys[at] for at in chosen]
    tables: dict[str, Table] = {}
    for name in names(whole.folder):
        rows = read_rows(whole.folder, name)
        kept = {key: rows[key] for key in wanted if key in rows}
        if kept:
            tables[name] = (kept, read_parameters(whole.folder, name))
    return lambda part: _write(part, tables)


def carry_merged(stores: Sequence[TraceStore]) -> Write:
    """Reads the labels that all of several runs have, made in the same way, for their merge.

    Raises:
        DamagedError: labels that cannot be trusted.
    """
    shared = set.intersection(*(set(names(store.folder)) for store in stores))
    tables: dict[str, Table] = {}
    for name in sorted(shared):
        parameters = [read_parameters(store.folder, name) for store in stores]
        if parameters[0] is None or any(other != parameters[0] for other in parameters):
            continue
        rows: dict[Key, TraceLabel] = {}
        for store in stores:
            found = read_rows(store.folder, name)
            keys = store.keys()
            rows |= {key: found[key] for key in keys if key in found}
        tables[name] = (rows, parameters[0])
    return lambda merged: _write(merged, tables)


def _write(
    run: TraceStore, tables: dict[str, tuple[dict[Key, TraceLabel], dict[str, Any] | None]]
) -> None:
    """Writes labels that are not there yet, or only of a part; others may have been made since."""
    for name, (rows, parameters) in tables.items():
        if not path_of(run.folder, name).is_file() or _is_part(run, name, rows, parameters):
            write_labels(run.folder, name, rows, parameters)


def _is_part(
    run: TraceStore, name: str, rows: dict[Key, TraceLabel], parameters: dict[str, Any] | None
) -> bool:
    """Whether the labels that are there are these, of fewer traces."""
    before = read_rows(run.folder, name)
    is_same = all(rows.get(key) == row for key, row in before.items())
    return is_same and read_parameters(run.folder, name) == parameters
