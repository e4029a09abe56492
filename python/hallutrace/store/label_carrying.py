"""Copies labels into a run that was made by merge or subset."""

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
"""Rows of a label file, and the parameters with which the labels were made."""

Write = Callable[[TraceStore], None]
"""Writes the labels into the new run; called after the run was written."""


def carry_part(whole: TraceStore, chosen: Sequence[int]) -> Write:
    """Reads all labels of a run, for a subset of it.

    Args:
        whole: the run.
        chosen: indices in the run of the traces of the subset, from 0.

    Returns:
        A function that writes these labels into the subset.

    Raises:
        DamagedError: a label file is invalid.
    """
    keys = whole.keys()
    wanted = [keys[index] for index in chosen]
    tables: dict[str, Table] = {}
    for name in names(whole.folder):
        rows = read_rows(whole.folder, name)
        kept = {key: rows[key] for key in wanted if key in rows}
        if kept:
            tables[name] = (kept, read_parameters(whole.folder, name))
    return lambda part: _write(part, tables)


def carry_merged(stores: Sequence[TraceStore]) -> Write:
    """Reads the labels that all runs have with equal parameters, for their merge.

    Args:
        stores: the runs that are merged.

    Returns:
        A function that writes these labels into the merged run.

    Raises:
        DamagedError: a label file is invalid.
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


def _write(run: TraceStore, tables: dict[str, Table]) -> None:
    """Writes labels that are missing or incomplete; labels that were made since are kept."""
    for name, (rows, parameters) in tables.items():
        if not path_of(run.folder, name).is_file() or _is_part(run, name, rows, parameters):
            write_labels(run.folder, name, rows, parameters)


def _is_part(
    run: TraceStore, name: str, rows: dict[Key, TraceLabel], parameters: dict[str, Any] | None
) -> bool:
    """Whether the existing labels are equal to these, for a part of the traces."""
    existing = read_rows(run.folder, name)
    is_equal = all(rows.get(key) == row for key, row in existing.items())
    return is_equal and read_parameters(run.folder, name) == parameters
