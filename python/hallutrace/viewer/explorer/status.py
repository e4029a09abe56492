"""How far a run has come, from its commit records, journals, claims and failures: no shard is read.

What was read of a file is kept until the file changes; of a journal only what was appended is read.
"""

from __future__ import annotations

import json
import os
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from hallutrace.store import expectation
from hallutrace.store.claims import SILENCE, last_holder
from hallutrace.store.failures import FailureLog
from hallutrace.store.folder import MANIFEST
from hallutrace.store.processes import State
from hallutrace.store.records import CommitRecord, Manifest
from hallutrace.viewer.explorer.file_cache import FileCache

CALM = 5.0  # seconds without a change after which a run that nobody holds counts as stopped
RATE_SECONDS = 300.0  # over which a rate is taken
LARGEST_LINE = 64_000_000  # bytes of a journal that are read at a time

Row = dict[str, Any]


class _Shard(NamedTuple):
    """What is kept of a commit record."""

    name: str
    traces: int
    size: int


@dataclass
class _Journal:
    """How far a journal was read: only what was appended since is read."""

    inode: int = 0
    offset: int = 0
    traces: int = 0
    data_bytes: int = 0

    def follow(self, path: Path) -> None:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            if status.st_ino != self.inode or status.st_size < self.offset:
                self.inode, self.offset, self.traces, self.data_bytes = status.st_ino, 0, 0, 0
            if status.st_size == self.offset:
                return
            file.seek(self.offset)
            new = file.read(LARGEST_LINE)
        whole = new[: new.rfind(b"\n") + 1]
        for line in whole.splitlines():
            self._take(line)
        self.offset += len(whole)

    def _take(self, line: bytes) -> None:
        """One batch: its checksum, then JSON; the first line has no traces."""
        try:
            batch = json.loads(line[17:])
            traces, data = batch.get("traces", ()), batch.get("data", 0)
            self.traces += len(traces)
            self.data_bytes = max(self.data_bytes, int(data))
        except (ValueError, TypeError, AttributeError, RecursionError):
            return


@dataclass
class RunStatus:
    """Follows one run.

    Args:
        folder: of the run.

    Examples:
        >>> row = RunStatus(run).row()
        >>> row["state"], row["traces"], row["total"], row["labels"]
        ('finished', 8, 8, ['contains'])
    """

    folder: Path
    _records: FileCache[_Shard] = field(default_factory=lambda: FileCache(_shard), repr=False)
    _manifest: FileCache[Manifest] = field(
        default_factory=lambda: FileCache(Manifest.read), repr=False
    )
    _failures: FileCache[int] = field(
        default_factory=lambda: FileCache(lambda path: len(FailureLog(path).read())), repr=False
    )
    _journals: dict[str, _Journal] = field(default_factory=dict, repr=False)
    _committed: tuple[int, Row] = field(default=(0, {}), repr=False)
    _labels: tuple[int, list[str]] = field(default=(0, []), repr=False)
    _seen: deque[tuple[float, int]] = field(default_factory=deque, repr=False)

    @property
    def fingerprint(self) -> str | None:
        """Of the manifest; None where it cannot be read."""
        manifest = self._manifest.read(self.folder / MANIFEST)
        return None if manifest is None else manifest.fingerprint

    def row(self, now: float | None = None) -> Row:
        """Where the run stands.

        Args:
            now: seconds of the clock by which rates are taken; None for the present.

        Returns:
            JSON values: ``state`` (running, stopped, finished, empty or damaged), ``traces``,
            ``total`` (answers that there will be; None where unknown), ``rate`` (traces a second;
            None where unknown), ``failures``, ``shards``, ``bytes``, ``labels``, ``model`` and
            ``changed`` (seconds since 1970).
        """
        manifest = self._manifest.read(self.folder / MANIFEST)
        partial = _names(self.folder / "partial")
        committed = self._committed_now()
        self._follow_journals(partial, committed["names"])
        traces = committed["traces"] + sum(one.traces for one in self._journals.values())
        data = sum(one.data_bytes for one in self._journals.values())
        changed = max(_changed(self.folder / name) for name in ("partial", "shards", MANIFEST))
        for name in self._journals:
            changed = max(changed, _changed(self.folder / "partial" / name))
        is_held = self._is_held(partial)
        expected = expectation.read(self.folder / "partial") if partial else None
        is_open = bool(self._journals) or expected is not None
        if manifest is None or committed["damaged"]:
            state = "damaged"
        elif is_held or (is_open and time.time() - changed < CALM):
            state = "running"
        elif is_open:
            state = "stopped"
        else:
            state = "finished" if traces else "empty"
        total = traces if state == "finished" else expected
        return {
            "state": state,
            "traces": traces,
            "total": total,
            "rate": self._rate(traces, time.monotonic() if now is None else now, state),
            "failures": self._failures.read(self.folder / "failures.jsonl") or 0,
            "shards": committed["shards"],
            "bytes": committed["bytes"] + data,
            "labels": self._labels_now(),
            "model": _model_name(manifest),
            "changed": round(changed),
        }

    def _committed_now(self) -> Row:
        """Sums over the commit records, counted again only if the folder of shards changed."""
        shards = self.folder / "shards"
        stamp = _changed_ns(shards)
        if stamp == self._committed[0] and self._committed[1]:
            return self._committed[1]
        names = sorted(name for name in _names(shards) if name.endswith(".json"))
        records = [self._records.read(shards / name) for name in names]
        known = [record for record in records if record is not None]
        row = {
            "names": {record.name for record in known},
            "traces": sum(record.traces for record in known),
            "bytes": sum(record.size for record in known),
            "shards": len(known),
            "damaged": len(known) < len(records),
        }
        self._committed = (stamp, row)
        return row

    def _labels_now(self) -> list[str]:
        folder = self.folder / "labels"
        stamp = _changed_ns(folder)
        if stamp != self._labels[0]:
            names = sorted(
                name.removesuffix(".jsonl")
                for name in _names(folder)
                if name.endswith(".jsonl") and not name.startswith(".")
            )
            self._labels = (stamp, names)
        return self._labels[1]

    def _follow_journals(self, partial: Mapping[str, None], committed: set[str]) -> None:
        open_ones = {
            name
            for name in partial
            if name.endswith(".journal") and name.removesuffix(".journal") not in committed
        }
        for name in self._journals.keys() - open_ones:
            del self._journals[name]
        for name in open_ones:
            try:
                self._journals.setdefault(name, _Journal()).follow(self.folder / "partial" / name)
            except OSError:
                self._journals.pop(name, None)  # committed meanwhile

    def _is_held(self, partial: Mapping[str, None]) -> bool:
        """Whether a process works on a shard; unlike those who claim, this writes no file."""
        folder = self.folder / "partial"
        for name in {name.partition(".claim")[0] for name in partial if ".claim" in name[1:]}:
            found = last_holder(folder, name)
            if found is None:
                continue
            path, holder = found
            state = holder.state()
            if state is State.RUNNING:
                return True
            if state is State.UNKNOWN and time.time() - _changed(path) < SILENCE:
                return True
        return False

    def _rate(self, traces: int, now: float, state: str) -> float | None:
        """Traces a second over the last minutes, between two times when the number grew."""
        if state != "running" or (self._seen and traces < self._seen[-1][1]):
            self._seen.clear()
        if not self._seen or self._seen[-1][1] != traces:
            self._seen.append((now, traces))
        while len(self._seen) > 2 and now - self._seen[0][0] > RATE_SECONDS:
            self._seen.popleft()
        (first, before), (last, after) = self._seen[0], self._seen[-1]
        if state != "running" or last <= first:
            return None
        return float(f"{(after - before) / (last - first):.3g}")


def _shard(path: Path) -> _Shard:
    record = CommitRecord.read(path)
    return _Shard(record.name, len(record.keys), record.size)


def _model_name(manifest: Manifest | None) -> str:
    model = None if manifest is None else manifest.identity.get("model")
    name = model.get("name") if isinstance(model, dict) else None
    return str(name or "")[:200]


def _names(folder: Path) -> dict[str, None]:
    try:
        with os.scandir(folder) as entries:
            return dict.fromkeys(entry.name for entry in entries)
    except OSError:
        return {}


def _changed(path: Path) -> float:
    return _changed_ns(path) / 1e9


def _changed_ns(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0
