"""``failures.jsonl``: questions and samples without a trace, and the errors that caused it."""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from hallutrace.atomic_files import storage_errors
from hallutrace.canonical_json import canonical

BAD_ROW = "question"  # stage of a row that is not a valid question, or contradicts another
# Stages in which another attempt may succeed.
RETRIED_STAGES = ("memory", "generate", "replay", "write")


@dataclass(frozen=True)
class Failure:
    """A row, a question, or one of its samples, for which there is no trace.

    Attributes:
        id: of the question; None if the row has no id.
        sample: number of the answer, from 0; None for all answers of the question.
        index: row in the source, from 0.
        stage: ``question``, ``prompt``, ``response``, ``memory``, ``generate``, ``replay`` or
            ``write``.
        error: message of a :class:`hallutrace.HallutraceError`, or type and message of an exception
            of another library.
        attempts: number of attempts, from 1.
        time: of the last attempt, UTC, ISO 8601.
        traceback: of an exception of another library; stored only for the first failure of each
            :attr:`kind`.
    """

    id: str | None
    sample: int | None
    index: int
    stage: str
    error: str
    attempts: int = 1
    time: str = ""
    traceback: str = ""

    @property
    def key(self) -> tuple[Any, ...]:
        """Id, sample and index: lines with equal keys are about the same failure."""
        return self.id, self.sample, self.index

    @property
    def kind(self) -> tuple[str, str]:
        """Stage and type of the error, which failures of one cause share."""
        return self.stage, self.error.partition(":")[0]


class FailureLog:
    """The failures of a run, one JSON object per line.

    A line that a killed process left incomplete is ignored. Of several lines with the same key the
    last counts, because a question may be tried again after a kill, or by another worker.

    Args:
        path: of the file; it is created with the first failure.

    Examples:
        >>> log = FailureLog(folder / "failures.jsonl")
        >>> log.add(Failure("q1", sample=None, index=0, stage="memory", error="out of memory"))
        >>> [(failure.id, failure.attempts) for failure in log.read()]
        [('q1', 1)]
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: dict[tuple[Any, ...], Failure] | None = None

    def read(self) -> list[Failure]:
        """All failures, in the order of their first lines.

        Raises:
            StorageError: the file cannot be read.
        """
        with storage_errors(f"read {self._path}", "check the file and its permissions"):
            content = self._path.read_bytes() if self._path.exists() else b""
        failures = {}
        for line in content.split(b"\n"):
            try:
                failure = Failure(**json.loads(line))
            except (ValueError, TypeError):
                continue
            failures[failure.key] = failure
        return list(failures.values())

    def add(self, failure: Failure) -> None:
        """Appends a failure, unless the log has one with the same key."""
        if failure.key not in self._all():
            self._append(failure)

    def add_again(self, failure: Failure) -> None:
        """Appends a failure of another attempt, with the number of attempts so far."""
        before = self._all().get(failure.key)
        self._append(replace(failure, attempts=before.attempts + 1 if before else 1))

    def _all(self) -> dict[tuple[Any, ...], Failure]:
        if self._known is None:
            self._known = {failure.key: failure for failure in self.read()}
        return self._known

    def _append(self, failure: Failure) -> None:
        known = self._all()
        if any(other.traceback and other.kind == failure.kind for other in known.values()):
            failure = replace(failure, traceback="")
        fields = asdict(replace(failure, time=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())))
        if not failure.traceback:
            del fields["traceback"]
        line = canonical(fields) + b"\n"
        with (
            storage_errors(f"write {self._path}", "fix it; the same command continues the run"),
            self._path.open("a+b") as file,
        ):
            # End a line that a killed process left incomplete, so that this one is valid JSON.
            if file.tell() and not _ends_line(file):
                line = b"\n" + line
            file.write(line)  # in one call, because other processes may append as well
            file.flush()
            os.fsync(file.fileno())
        known[failure.key] = failure


def _ends_line(file: Any) -> bool:
    file.seek(-1, os.SEEK_END)
    return bool(file.read(1) == b"\n")
