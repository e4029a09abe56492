"""Runs that are open, few at a time, and the payloads that were made of them."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from hallutrace.errors import NotInRunError
from hallutrace.store.folder import MANIFEST
from hallutrace.store.reader import open_run
from hallutrace.viewer.evaluations.files import EVALUATION_FILE
from hallutrace.viewer.explorer.catalog import Catalog
from hallutrace.viewer.providers import payload_of
from hallutrace.viewer.viewed_run import ViewedRun

OPEN_RUNS = 4
KEPT_BYTES = 64_000_000  # of payloads
LARGEST_KEPT = 8_000_000  # of one of them

Version = tuple[int, ...]


@dataclass(frozen=True)
class Payload:
    """What the page asked for.

    Attributes:
        content: as :func:`hallutrace.viewer.payload.pack` gives it.
        tag: digest of the content, hexadecimal.
    """

    content: bytes
    tag: str


@dataclass
class _Open:
    """A run that is open. What is asked of one trace does not wait for what is asked of all."""

    version: Version
    viewed: ViewedRun | None = None
    opening: threading.Lock = field(default_factory=threading.Lock)
    of_all: threading.Lock = field(default_factory=threading.Lock)
    of_one: threading.Lock = field(default_factory=threading.Lock)


class OpenRuns:
    """Runs by their ids; the least recently used one is closed. For several threads.

    Args:
        catalog: what there is to open.

    Examples:
        >>> catalog = Catalog([run])
        >>> runs = OpenRuns(catalog)
        >>> (name,) = catalog.runs
        >>> len(runs.payload(name, "run", {}).tag)
        32
    """

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._lock = threading.Lock()
        self._open: OrderedDict[str, _Open] = OrderedDict()
        self._kept: OrderedDict[tuple[object, ...], Payload] = OrderedDict()
        self._kept_bytes = 0
        self._lent: dict[str, ViewedRun] = {}

    def lend(self, id_: str, viewed: ViewedRun | None) -> None:
        """Shows a run that is not in the catalog under an id, or shows it no longer.

        Args:
            id_: the id, of letters.
            viewed: the run; None takes it away.
        """
        with self._lock:
            self._open.pop(id_, None)
            for key in [key for key in self._kept if key[0] == id_]:
                self._kept_bytes -= len(self._kept.pop(key).content)
            if viewed is None:
                self._lent.pop(id_, None)
            else:
                self._lent[id_] = viewed

    def folder(self, id_: str) -> Path:
        """The folder of a run.

        Raises:
            NotInRunError: no such run.
        """
        folder = self._catalog.runs.get(id_)
        if folder is None:
            raise NotInRunError(f"Expected a run that is explored, got {id_[:80]!r}")
        return folder

    def viewed(self, id_: str) -> ViewedRun:
        """The run with this id, opened if it is not, and opened anew if it has grown.

        Raises:
            NotInRunError: no such run.
            DamagedError: its manifest or a commit record is damaged.
        """
        return self._opened(id_, self._entry(id_))

    def payload(self, id_: str, name: str, parameters: Mapping[str, str]) -> Payload:
        """What the page asks for of a run; each is made once, however many ask at the same time.

        Args:
            id_: of the run.
            name: of the payload.
            parameters: of the payload; with ``trace`` it is about one trace.

        Raises:
            NotInRunError: no such run or payload, or the run does not have what it needs.
            InputError: parameters that are refused.
            DamagedError: something of the run is damaged.
        """
        entry = self._entry(id_)
        key = (id_, entry.version, name, *sorted(parameters.items()))
        if (kept := self._found(key)) is not None:
            return kept
        with entry.of_one if "trace" in parameters else entry.of_all:
            if (kept := self._found(key)) is not None:
                return kept  # made while this request waited
            content = payload_of(self._opened(id_, entry), name, parameters)
            made = Payload(content, hashlib.blake2b(content, digest_size=16).hexdigest())
            self._keep(key, made)
            return made

    def _found(self, key: tuple[object, ...]) -> Payload | None:
        with self._lock:
            kept = self._kept.get(key)
            if kept is not None:
                self._kept.move_to_end(key)
            return kept

    def _entry(self, id_: str) -> _Open:
        version = self._version(id_)
        with self._lock:
            entry = self._open.pop(id_, None)
            if entry is None or entry.version != version:
                entry = _Open(version)
            self._open[id_] = entry
            if len(self._open) > OPEN_RUNS:
                self._open.popitem(last=False)
        return entry

    def _opened(self, id_: str, entry: _Open) -> ViewedRun:
        with entry.opening:
            if entry.viewed is None:
                entry.viewed = self._lent.get(id_) or self._view(self.folder(id_))
            return entry.viewed

    def _view(self, folder: Path) -> ViewedRun:
        store = open_run(folder)
        fingerprint = store.manifest.fingerprint
        evaluations = self._catalog.evaluations_of(fingerprint)
        detectors = self._catalog.detectors_of(fingerprint)
        return ViewedRun(
            store,
            evaluations[0].folder if evaluations else None,
            detectors[0].folder if detectors else None,
        )

    def _version(self, id_: str) -> Version:
        """Changes when the run gets traces or labels, or another evaluation or detector is made."""
        if id_ in self._lent:
            return (id(self._lent[id_]),)
        folder = self.folder(id_)
        parts = [folder / MANIFEST, folder / "shards", folder / "labels"]
        parts += [one.folder / EVALUATION_FILE for one in self._catalog.evaluations]
        parts += [one.folder for one in self._catalog.detectors]
        return tuple(map(_changed_ns, parts))

    def _keep(self, key: tuple[object, ...], made: Payload) -> None:
        if len(made.content) > LARGEST_KEPT:
            return
        with self._lock:
            if key not in self._kept:
                self._kept[key] = made
                self._kept_bytes += len(made.content)
            while self._kept_bytes > KEPT_BYTES:
                _, oldest = self._kept.popitem(last=False)
                self._kept_bytes -= len(oldest.content)


def _changed_ns(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0
