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
        folder: the run.
        traces: in the whole run.
        new_traces: made by this call.
        failures: of the whole run.
        merged: identical duplicates in the source.
        right: share of answers that contain a reference, of those with references; None without.
        bytes: of all shards.
        seconds: that this call spent on its traces.
        syncing: of those, seconds spent waiting for the disk to sync.
        failing: what still fails, where this call tried failures again.
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
        """Share of its time that this call waited for the disk to sync."""
        return self.syncing / self.seconds if self.seconds > 0 else 0.0


def still_failing(run: Run, records: Iterable[CommitRecord]) -> list[Failure]:
    """The failures of a run for which no later attempt gave a trace.

    A bad row may have the id of a good row with a trace; it stays a failure.
    """
    records = list(records)
    done = {(key[0], key[1]) for record in records for key in record.keys}
    rows = {index for record in records for index in record.indices}
    return [
        one
        for one in run.failures.read()
        if (
            one.index not in rows if one.stage == BAD_ROW else (one.id, one.sample or 0) not in done
        )
    ]


def summarize(
    run: Run, merged: int, *, is_retried: bool, new_traces: int, seconds: float, syncing: float
) -> Summary:
    """Summarizes a run as it is now.

    Args:
        run: the run.
        merged: identical duplicates in the source.
        is_retried: whether failures were tried again; the summary then lists those left.
        new_traces: see :class:`Summary`.
        seconds: likewise.
        syncing: likewise.
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
