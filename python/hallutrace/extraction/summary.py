"""The summary of an extraction: traces, failures, bytes and time."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from hallutrace.store.failures import BAD_ROW, Failure
from hallutrace.store.folder import CommitRecord, Run


@dataclass(frozen=True, slots=True)
class Summary:
    """Result of an extraction.

    Attributes:
        folder: folder of the run.
        traces: number of traces in the run.
        new_traces: number of traces that this call wrote.
        failures: number of failures in the run.
        merged: number of identical duplicates in the source.
        right: share of the answers with references that contain one; None without references.
        bytes: size of all shards in bytes.
        seconds: duration of this call in seconds, without loading and checking the model.
        syncing: seconds of those that this call waited for the disk to sync.
        failing: remaining failures, if this call retried failures; empty otherwise.
    """

    folder: Path
    traces: int
    new_traces: int
    failures: int
    merged: int
    right: float | None
    bytes: int
    seconds: float
    syncing: float
    failing: tuple[Failure, ...] = ()

    @property
    def syncing_share(self) -> float:
        """Share of ``seconds`` that this call waited for the disk to sync."""
        return self.syncing / self.seconds if self.seconds > 0 else 0.0


def still_failing(run: Run, records: Iterable[CommitRecord]) -> list[Failure]:
    """The failures of a run whose question has no trace.

    A bad row is identified by its index, because a valid row with a trace may have the same id.

    Args:
        run: the run.
        records: commit records of the run.

    Examples:
        >>> from hallutrace.store.folder import Run
        >>> still_failing(Run(run), Run(run).records())
        []
    """
    records = list(records)
    done = {(key[0], key[1]) for record in records for key in record.keys}
    rows = {index for record in records for index in record.indices}
    return [
        failure
        for failure in run.failures.read()
        if (
            failure.index not in rows
            if failure.stage == BAD_ROW
            else (failure.id, failure.sample or 0) not in done
        )
    ]


def summarize(
    run: Run, merged: int, *, is_retried: bool, new_traces: int, seconds: float, syncing: float
) -> Summary:
    """Summarizes a run from its committed shards.

    Args:
        run: the run.
        merged: see :class:`Summary`, as for the arguments below.
        is_retried: whether this call retried failures; ``failing`` is filled only then.
        new_traces: number of traces that this call wrote.
        seconds: duration of this call.
        syncing: seconds that this call waited for the disk.

    Examples:
        >>> told = {"is_retried": False, "new_traces": 8, "seconds": 2.0, "syncing": 0.1}
        >>> summarize(Run(run), 0, **told).traces
        8
    """
    records = run.records()
    failing = still_failing(run, records)

    def total(name: str) -> int:
        return sum(record.counts[name] for record in records)

    return Summary(
        folder=run.folder,
        traces=total("traces"),
        new_traces=new_traces,
        failures=len(failing),
        failing=tuple(failing) if is_retried else (),
        merged=merged,
        right=total("right") / total("judged") if total("judged") else None,
        bytes=sum(record.size for record in records),
        seconds=seconds,
        syncing=syncing,
    )
