"""``failures.jsonl``: what gave no trace, and why."""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from hallutrace.atomic_files import storage_errors
from hallutrace.canonical_json import canonical

BAD_ROW = "question"  # the stage of a row that is no question, or contradicts another
# Where another attempt may end otherwise.
RETRIED_STAGES = ("memory", "generate", "replay", "write")


@dataclass(frozen=True)
class Failure:
    """A row, a question, or one of its samples, that gave no trace.

    Attributes:
        id: of the question; None where the row has none.
        sample: which answer; None for all of them.
        index: row in the source, from 0.
        stage: ``question``, ``prompt``, ``response``, ``memory``, ``generate``, ``replay`` or
            ``write``.
        error: expected, got, where, fix; or type and message of what another library raised.
        attempts: how often it was tried.
        time: of the last attempt, UTC.
        traceback: of what another library raised; kept for the first failure of its kind alone.
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
        """What makes two lines tell of the same failure; another attempt may fail elsewhere."""
        return self.id, self.sample, self.index

    @property
    def kind(self) -> tuple[str, str]:
        """What failures of one cause share: where, and the type of the error."""
        return self.stage, self.error.partition(":")[0]


class FailureLog:
    """The failures of a run, appended line by line.

    A line that a kill cut short is left out, and of several lines on the same failure the last
    counts: what is done again after a kill, or met by several workers, is one failure.

    Args:
        path: of the file; it is made with the first failure.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: dict[tuple[Any, ...], Failure] | None = None

    def read(self) -> list[Failure]:
        """All failures, in the order in which they were first met.

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
        """Appends one, unless it is there already."""
        if failure.key not in self._all():
            self._append(failure)

    def add_again(self, failure: Failure) -> None:
        """Appends one that was tried before, and counts the attempts."""
        before = self._all().get(failure.key)
        self._append(replace(failure, attempts=before.attempts + 1 if before else 1))

    def _all(self) -> dict[tuple[Any, ...], Failure]:
        if self._known is None:
            self._known = {failure.key: failure for failure in self.read()}
        return self._known

    def _append(self, failure: Failure) -> None:
        known = self._all()
        if any(one.traceback and one.kind == failure.kind for one in known.values()):
            failure = replace(failure, traceback="")
        fields = asdict(replace(failure, time=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())))
        if not failure.traceback:
            del fields["traceback"]
        line = canonical(fields) + b"\n"
        with (
            storage_errors(f"write {self._path}", "fix it; the same command continues the run"),
            self._path.open("a+b") as file,
        ):
            # A line that a kill cut short ends here, so that it does not swallow the next.
            if file.tell() and not _ends_line(file):
                line = b"\n" + line
            file.write(line)  # at once, as others may write as well
            file.flush()
            os.fsync(file.fileno())
        known[failure.key] = failure


def _ends_line(file: Any) -> bool:
    file.seek(-1, os.SEEK_END)
    return bool(file.read(1) == b"\n")
