"""Which evaluations and saved detectors belong to a run.

Those whose folders are given; else those found in ``evaluations/`` and ``detectors/`` of the
current folder and beside the run, and in the folder that holds the run. One belongs to a run if it
names the run's fingerprint, and for an evaluation also traces of the run.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TypeVar

from hallutrace.detect.provenance import TRAINING, Provenance
from hallutrace.detect.saving import FACTS as DETECTOR_FILE
from hallutrace.errors import HallutraceError, NotInRunError
from hallutrace.option_names import parameter
from hallutrace.store.reader import TraceStore
from hallutrace.viewer.evaluations.files import EVALUATION_FILE, SCORES_FILE, EvaluationFiles

MOST_FOLDERS = 500
"""Folders that are looked into, in each place."""

_PLACES = ("evaluations", "detectors")
_LARGEST = 100_000_000  # bytes of a JSON file that is opened unasked
_ROWS = 5  # of the scores, whose traces must be in the run


@dataclass(frozen=True)
class FoundEvaluation:
    """A finished evaluation of a run.

    Attributes:
        folder: that it lies in.
        run: name of the run when it was evaluated.
        label: name of the protocol.
        detectors: number of rows with figures.
        best: label and AUROC of the best row; None where none has figures.
        is_check: whether labels were shuffled, so that it says nothing about the run.
        modified: when it was written, in seconds since 1970.
    """

    folder: Path
    run: str
    label: str
    detectors: int
    best: tuple[str, float] | None
    is_check: bool
    modified: float


@dataclass(frozen=True)
class FoundDetector:
    """A detector that was trained on a run, or is being trained.

    Attributes:
        folder: that it lies in.
        name: of the detector.
        label: name of the protocol.
        is_done: whether it can be used; else its training goes on, or was ended.
        validation_auroc: None until it is done.
        modified: when it was written last, in seconds since 1970.
    """

    folder: Path
    name: str
    label: str
    is_done: bool
    validation_auroc: float | None
    modified: float


@dataclass(frozen=True)
class Found:
    """What belongs to a run.

    Attributes:
        evaluations: the newest first; those with shuffled labels last.
        detectors: the newest first.
        skipped: what was not looked at, and why; a sentence each.
    """

    evaluations: tuple[FoundEvaluation, ...]
    detectors: tuple[FoundDetector, ...]
    skipped: tuple[str, ...]


def find_for(
    store: TraceStore,
    *,
    evaluations: Sequence[Path] = (),
    detectors: Sequence[Path] = (),
    near: Path | None = None,
) -> Found:
    """What belongs to a run.

    Args:
        store: the run.
        evaluations: folders of evaluations; if any are given, no others are looked for.
        detectors: the same of saved detectors.
        near: folder to look in, with its ``evaluations/`` and ``detectors/`` (default: the current
            one).

    Returns:
        What was found. Nothing that is damaged, or of another run, is an error here unless it was
        given.

    Raises:
        NotInRunError: a folder that is given holds none, or one of another run.
        DamagedError: a folder that is given holds a damaged one.

    Examples:
        >>> find_for(hallutrace.open(run), near=folder)
        Found(evaluations=(), detectors=(), skipped=())
    """
    skipped: list[str] = []
    places = candidates(store.folder.resolve(), (near or Path()).resolve(), skipped)
    tested = _taken(evaluations or places, bool(evaluations), store, _evaluation, skipped)
    trained = _taken(detectors or places, bool(detectors), store, _detector, skipped)
    tested.sort(key=lambda one: (one.is_check, -one.modified))
    trained.sort(key=lambda one: -one.modified)
    return Found(tuple(tested), tuple(trained), tuple(skipped))


One = TypeVar("One")


def _taken(
    folders: Sequence[Path],
    are_given: bool,
    store: TraceStore,
    look: Callable[[Path, TraceStore, bool], One | None],
    skipped: list[str],
) -> list[One]:
    """What some folders hold of this run."""
    found = []
    for folder in folders:
        try:
            one = look(folder, store, are_given)
        except HallutraceError as error:
            if are_given:
                raise
            skipped.append(str(error))
            continue
        except OSError as error:
            skipped.append(f"{folder} could not be read: {error.strerror or error}")
            continue
        if one is not None:
            found.append(one)
    return found


def _evaluation(folder: Path, store: TraceStore, is_given: bool) -> FoundEvaluation | None:
    path = folder / EVALUATION_FILE
    if not is_given and not (path.is_file() and path.stat().st_size <= _LARGEST):
        return None
    content = EvaluationFiles.read(folder).content
    is_ours = content.run.fingerprint == store.manifest.fingerprint
    if not (is_ours and all(key in store for key in _first_keys(folder / SCORES_FILE))):
        _refuse(is_given, "an evaluation", folder, store, content.run.name)
        return None
    best = max(
        ((row.label, row.auroc.value) for row in content.done if row.auroc is not None),
        key=lambda one: one[1],
        default=None,
    )
    return FoundEvaluation(
        folder,
        content.run.name,
        content.run.label.name,
        len(content.done),
        best,
        content.protocol.shuffle_labels is not None,
        path.stat().st_mtime,
    )


def _detector(folder: Path, store: TraceStore, is_given: bool) -> FoundDetector | None:
    path = folder / TRAINING
    if not is_given and not (path.is_file() and path.stat().st_size <= _LARGEST):
        return None
    found = Provenance.read(folder)
    if found is None:
        raise NotInRunError(
            f"Expected a detector that `hallutrace train` wrote in {folder}, got no {TRAINING}"
        )
    if found.fingerprint != store.manifest.fingerprint:
        _refuse(is_given, "a detector", folder, store, found.run)
        return None
    times = [one.stat().st_mtime for one in (path, folder / DETECTOR_FILE) if one.is_file()]
    return FoundDetector(
        folder,
        str(found.detector.get("name", "")),
        found.label,
        (folder / DETECTOR_FILE).is_file(),
        found.validation_auroc,
        max(times),
    )


def _refuse(is_given: bool, what: str, folder: Path, store: TraceStore, other: str) -> None:
    if is_given:
        raise NotInRunError(
            f"Expected {what} of the run {store.folder}, got one of {other!r} in {folder} - "
            "give another folder"
        )


def _first_keys(path: Path) -> Iterator[tuple[str, int]]:
    """Keys of the first traces of ``scores.csv``; what is damaged shows when it is read whole."""
    with suppress(OSError, ValueError, csv.Error, IndexError), path.open(encoding="utf-8") as file:
        for row in islice(csv.reader(file), 1, 1 + _ROWS):
            if row[0].isprintable() and "\\" not in row[0]:  # others are written with escapes
                yield row[0], int(row[1])


def candidates(run: Path, near: Path, skipped: list[str]) -> list[Path]:
    """Folders that may hold an evaluation or a detector, each once.

    Args:
        run: folder of the run.
        near: folder to look in too.
        skipped: gets a sentence for each place with too many of them.
    """
    bases = [near, run.parent, run.parent.parent]
    places = [*(base / name for base in bases for name in _PLACES), run.parent]
    found: dict[Path, None] = {}
    for place in dict.fromkeys(places):
        inside = _folders(place)
        if len(inside) > MOST_FOLDERS:
            skipped.append(
                f"{place} has {len(inside):,} folders, of which {MOST_FOLDERS} were looked into - "
                f"give those to show with {parameter('evaluation')} and {parameter('detector')}"
            )
        found.update(dict.fromkeys(inside[:MOST_FOLDERS]))
    found.pop(run, None)
    return list(found)


def _folders(place: Path) -> list[Path]:
    """Folders in a folder, the newest first."""
    times: dict[Path, float] = {}
    with suppress(OSError):
        for one in place.iterdir():
            with suppress(OSError):
                if one.is_dir():
                    times[one.resolve()] = one.stat().st_mtime
    return sorted(times, key=lambda one: (-times[one], one))
