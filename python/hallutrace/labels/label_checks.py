"""Refusals of labels before they are written: of other labels, of none, or that lose some."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hallutrace.errors import InputError
from hallutrace.label_protocols import Judge
from hallutrace.labels.registry import TraceProtocol
from hallutrace.option_names import parameter
from hallutrace.store.label_files import Key, TraceLabel, path_of, read_parameters
from hallutrace.store.reader import TraceStore


def check_parameters(folder: Path, name: str, parameters: dict[str, Any], overwrite: bool) -> None:
    """Refuses labels of that name that were made in another way, before any work."""
    if overwrite or not path_of(folder, name).is_file():
        return
    there = read_parameters(folder, name)
    if there is None:
        return
    differing = [
        f"{field} {there.get(field)}, asked {parameters.get(field)}"
        for field in sorted({*there, *parameters})
        if there.get(field) != parameters.get(field)
    ]
    if differing:
        is_triviaqa = str(there.get("normalization")).startswith("triviaqa")
        settings = f"{parameter('normalize', 'triviaqa')} {parameter('name', name)}"
        kept = f" (or keep them with {settings})" if is_triviaqa else ""
        raise InputError(
            f"Expected labels `{name}` with these settings, got others in {folder} "
            f"({'; '.join(differing)}) - choose another {parameter('name')}{kept}, or replace "
            f"them with {parameter('overwrite', True)}"
        )


def check_judged(
    store: TraceStore,
    judge: Judge | TraceProtocol,
    rows: dict[Key, TraceLabel],
    without_references: int,
) -> None:
    """Refuses labels that would all be null: the run has no right answers."""
    if any(row.score is not None for row in rows.values()):
        return
    if isinstance(judge, TraceProtocol):
        raise InputError(
            f"Expected `{judge.name}` to score some trace of {store.folder}, got None for all "
            f"{len(rows):,} - fix the protocol"
        )
    got = f"{without_references:,} of {len(rows):,} traces without any"
    if without_references < len(rows):
        got += f", and none of the others that `{judge.name}` can judge"
    raise InputError(
        f"Expected right answers to judge by, got {got} in {store.folder} - extract again with "
        f"{parameter('answers_column', 'NAME')}, the column of right answers, or take the labels "
        f"of a person or a judge with {parameter('file', 'FILE', option='--from')}"
    )


def check_kept(
    path: Path, before: dict[Key, TraceLabel], rows: dict[Key, TraceLabel], *, may_fill: bool
) -> None:
    """Refuses to lose labels: rows that were changed by hand, or of traces that are gone."""
    lost = [
        key
        for key, row in before.items()
        if rows.get(key) != row and not (may_fill and key in rows and row == TraceLabel(None, None))
    ]
    if lost:
        id_, sample = lost[0]
        raise InputError(
            f"Expected the labels in {path} to be those of before, got {len(lost):,} of "
            f"{len(before):,} that would change, first {id_!r}, sample {sample} - choose another "
            f"{parameter('name')}, or replace them with {parameter('overwrite', True)}"
        )
