"""What lies in the folders that are explored: runs, evaluations of them, saved detectors.

A run is addressed by a short id that is made here of its name and place. A client never names a
path.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from hallutrace.detect.provenance import TRAINING
from hallutrace.detect.saving import FACTS
from hallutrace.errors import InputError
from hallutrace.store.folder import MANIFEST
from hallutrace.viewer.evaluations.files import EVALUATION_FILE
from hallutrace.viewer.explorer.file_cache import FileCache

Found = TypeVar("Found", bound="Made")

DEPTH = 3  # folders below a given one
MOST_FOLDERS = 5_000
LARGEST_JSON = 64_000_000  # bytes of an evaluation that is read


@dataclass(frozen=True)
class Made:
    """An evaluation or a detector: its folder, and the fingerprint of the run it was made of."""

    folder: Path
    fingerprint: str
    changed: float


@dataclass(frozen=True)
class FoundEvaluation(Made):
    """An evaluation that ``hallutrace evaluate`` wrote.

    Attributes:
        best: label, AUROC and protocol of the detector with the largest AUROC; None where there is
            none.
    """

    best: tuple[str, float, str] | None = None


@dataclass(frozen=True)
class SavedDetector(Made):
    """A detector that ``hallutrace train`` wrote.

    Attributes:
        name: of the method, such as ``linear-probe``.
        model: of the run that it was trained on, a part of the run's identity.
    """

    name: str = ""
    model: Any = None


@dataclass
class Catalog:
    """Runs, evaluations and detectors in some folders.

    Args:
        roots: folders of runs, evaluations or detectors, or folders that hold such.

    Attributes:
        runs: folder of each run by its id, in the order of their names.
        evaluations: all that were found.
        detectors: all that were found.

    Raises:
        InputError: a folder that does not exist.

    Examples:
        >>> catalog = Catalog([run])
        >>> [folder.name for folder in catalog.runs.values()]
        ['run']
    """

    roots: Sequence[Path]
    runs: dict[str, Path] = field(default_factory=dict)
    evaluations: list[FoundEvaluation] = field(default_factory=list)
    detectors: list[SavedDetector] = field(default_factory=list)

    def __post_init__(self) -> None:
        for root in self.roots:
            if not root.is_dir():
                raise InputError(
                    f"Expected the folder of a run, or a folder of runs, got no folder {root} - "
                    "give one that is there"
                )
        self._lock = threading.Lock()
        self._json = FileCache(_read_object)
        self.refresh()

    def refresh(self) -> None:
        """Looks again; what did not change is not read again."""
        with self._lock:
            runs, evaluations, detectors = {}, [], []
            for folder, names in sorted(self._folders()):
                if MANIFEST in names:
                    runs[run_id(folder)] = folder
                elif EVALUATION_FILE in names:
                    evaluations += self._evaluation(folder)
                elif FACTS in names or TRAINING in names:
                    detectors += self._detector(folder)
            self.runs, self.evaluations, self.detectors = runs, evaluations, detectors

    def evaluations_of(self, fingerprint: str) -> list[FoundEvaluation]:
        """Evaluations of a run, the newest first."""
        return _newest_first(self.evaluations, fingerprint)

    def detectors_of(self, fingerprint: str) -> list[SavedDetector]:
        """Detectors that were trained on a run, the newest first."""
        return _newest_first(self.detectors, fingerprint)

    def _folders(self) -> Iterator[tuple[Path, frozenset[str]]]:
        """Folders that hold something, and the names in them; nothing within a run."""
        waiting = [(root.resolve(), 0) for root in self.roots]
        seen: set[Path] = set()
        while waiting and len(seen) < MOST_FOLDERS:
            folder, depth = waiting.pop()
            if folder in seen:
                continue
            seen.add(folder)
            try:
                entries = list(os.scandir(folder))
            except OSError:
                continue
            names = frozenset(entry.name for entry in entries)
            if names & {MANIFEST, EVALUATION_FILE, FACTS, TRAINING}:
                yield folder, names
            elif depth < DEPTH:
                waiting += [
                    (folder / entry.name, depth + 1)
                    for entry in entries
                    if not entry.name.startswith(".") and entry.is_dir(follow_symlinks=False)
                ]

    def _evaluation(self, folder: Path) -> list[FoundEvaluation]:
        content = self._json.read(folder / EVALUATION_FILE)
        about = content.get("run") if content else None
        fingerprint = about.get("fingerprint") if isinstance(about, dict) else None
        if not isinstance(fingerprint, str):
            return []
        changed, best = _changed(folder / EVALUATION_FILE), content.get("best") if content else None
        return [FoundEvaluation(folder, fingerprint, changed, best)]

    def _detector(self, folder: Path) -> list[SavedDetector]:
        content = self._json.read(folder / TRAINING)
        about = content.get("detector") if content else None
        identity = content.get("identity") if content else None
        if not content or not isinstance(about, dict) or not isinstance(identity, dict):
            return []
        fingerprint, name = content.get("fingerprint"), about.get("name")
        if not isinstance(fingerprint, str) or not isinstance(name, str):
            return []
        changed, model = _changed(folder / TRAINING), identity.get("model")
        return [SavedDetector(folder, fingerprint, changed, name, model)]


def run_id(folder: Path) -> str:
    """A short name of a run for addresses, the same each time: letters, digits and hyphens.

    Examples:
        >>> run_id(Path("/data/runs/NQ 1"))[:5]
        'nq-1-'
    """
    slug = re.sub(r"[^a-z0-9]+", "-", folder.name.lower()).strip("-")[:24] or "run"
    place = hashlib.blake2b(os.fsencode(folder), digest_size=4).hexdigest()
    return f"{slug}-{place}"


def _newest_first(made: Sequence[Found], fingerprint: str) -> list[Found]:
    found = [one for one in made if one.fingerprint == fingerprint]
    return sorted(found, key=lambda one: -one.changed)


def _changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _read_object(path: Path) -> dict[str, Any] | None:
    """A JSON object; what is not needed of it is not kept."""
    if path.stat().st_size > LARGEST_JSON:
        return None
    content = json.loads(path.read_bytes())
    if not isinstance(content, dict):
        return None
    kept = {name: content.get(name) for name in ("run", "detector", "fingerprint")}
    identity = content.get("identity")
    model = identity.get("model") if isinstance(identity, dict) else None
    return {**kept, "identity": {"model": model}, "best": _best(content)}


def _best(evaluation: dict[str, Any]) -> tuple[str, float, str] | None:
    """Label, AUROC and protocol of the detector with the largest AUROC."""
    try:
        protocol = str(evaluation["run"]["label"]["name"])
        reached = [
            (float(one["auroc"]["value"]), str(one["label"]))
            for one in evaluation["detectors"]
            if one["status"] == "done"
        ]
    except (KeyError, TypeError, ValueError):
        return None
    auroc, label = max(reached, default=(0.0, ""))
    return (label, auroc, protocol) if label else None
