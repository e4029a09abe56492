"""Where all runs stand, as rows with a cursor: only what changed since is told."""

from __future__ import annotations

import secrets
import threading
import time
from typing import Any

from hallutrace.viewer.explorer.catalog import Catalog
from hallutrace.viewer.explorer.status import Row, RunStatus

LOOK_AGAIN = 5.0  # seconds after which folders are looked through for new runs
INTERVAL = 1.0  # seconds between two looks at the runs


class _Versions:
    """The fields of one row, each with the number of the look that found its value."""

    def __init__(self) -> None:
        self.values: Row = {}
        self.since: dict[str, int] = {}

    def take(self, row: Row, look: int) -> bool:
        """Takes the fields that differ; whether any did."""
        new = {name: value for name, value in row.items() if self.values.get(name) != value}
        new |= {name: None for name in row if name not in self.values}
        for name in new:
            self.values[name], self.since[name] = row[name], look
        return bool(new)


class Watch:
    """Looks at the runs of a catalog, at most once a second however many ask.

    Args:
        catalog: the runs.

    Examples:
        >>> watch = Watch(Catalog([run]))
        >>> first = watch.changes(None)
        >>> [row["name"] for row in first["runs"]], watch.changes(first["cursor"])["runs"]
        (['run'], [])
    """

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._lock = threading.Lock()
        self._start = secrets.token_hex(4)  # cursors of another start are not known here
        self._look = 0
        self._looked, self._refreshed = 0.0, time.monotonic()
        self._status: dict[str, RunStatus] = {}
        self._rows: dict[str, _Versions] = {}
        self._gone: dict[str, int] = {}

    def changes(self, cursor: str | None) -> dict[str, Any]:
        """What changed after a cursor.

        Args:
            cursor: of an earlier answer; None, or one of another start, for everything.

        Returns:
            ``cursor``, ``whole`` (whether this is everything), ``runs`` (``id`` and the fields that
            changed, see :meth:`RunStatus.row`, with ``name``, ``evaluations`` and ``detectors``)
            and ``gone`` (ids of runs that are no longer there).
        """
        with self._lock:
            self._look_at_runs()
            after = self._number(cursor)
            rows = [
                {"id": id_, **{name: row.values[name] for name in changed}}
                for id_, row in self._rows.items()
                if (changed := [name for name, look in row.since.items() if look > after])
            ]
            gone = [id_ for id_, look in self._gone.items() if look > after]
            return {
                "cursor": f"{self._start}-{self._look}",
                "whole": after == 0,
                "runs": rows,
                "gone": gone if after else [],
            }

    def _number(self, cursor: str | None) -> int:
        start, _, number = (cursor or "").partition("-")
        known = start == self._start and number.isdecimal() and len(number) < 18
        return int(number) if known and int(number) <= self._look else 0

    def _look_at_runs(self) -> None:
        now = time.monotonic()
        if self._looked and now - self._looked < INTERVAL / 2:
            return
        if now - self._refreshed > LOOK_AGAIN:
            self._catalog.refresh()
            self._refreshed = now
        self._look += 1
        runs = self._catalog.runs
        for id_ in [id_ for id_ in self._rows if id_ not in runs]:
            del self._rows[id_], self._status[id_]
            self._gone[id_] = self._look
        for id_, folder in runs.items():
            status = self._status.setdefault(id_, RunStatus(folder))
            row = {"name": folder.name, **status.row(), **self._made_of(status.fingerprint)}
            self._rows.setdefault(id_, _Versions()).take(row, self._look)
            self._gone.pop(id_, None)
        self._looked = time.monotonic()

    def _made_of(self, fingerprint: str | None) -> Row:
        """Evaluations and detectors of a run."""
        evaluations = self._catalog.evaluations_of(fingerprint or "")
        detectors = self._catalog.detectors_of(fingerprint or "")
        best = evaluations[0].best if evaluations else None
        return {"evaluations": len(evaluations), "best": best, "detectors": len(detectors)}
