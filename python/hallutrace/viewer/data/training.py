"""How trainings of a run's detectors go, and how far its evaluations are; live or afterwards."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from hallutrace.detect.nets.history import WHOLE, Epoch
from hallutrace.detect.nets.history_log import LOG, News, read_since
from hallutrace.errors import DamagedError, NotInRunError
from hallutrace.viewer.evaluations.discovery import FoundDetector, candidates, find_for
from hallutrace.viewer.evaluations.progress import FitProgress, fit_progress
from hallutrace.viewer.viewed_run import ViewedRun

WORK = "training"
"""Folder of a detector with its checkpoints and histories, as `hallutrace train` names it."""

_MOST_PARTS = 200  # networks of one detector


def training_data(viewed: ViewedRun, *, cursor: str | None = None) -> dict[str, Any]:
    """Histories of the detectors that were trained on the run, or are being trained.

    Args:
        viewed: the run.
        cursor: that an earlier call gave; only what is new is told then, and nothing that was
            read before is read again.

    Returns:
        - ``trainings``: the newest first; ``id``, ``name`` (of the folder), ``detector``,
          ``label``, ``is_done``, ``validation_auroc``, ``idle_seconds`` (since something was
          written), ``problem`` (a history that cannot be read), ``parts``: one for each network;
          None where nothing is new of a detector that is done; ``id``, ``name``, ``kept`` (epochs
          told before that still stand), ``notes_kept``,
          ``notes``, ``columns``: ``epoch``, ``loss``, ``validation_auroc``, ``monitored``,
          ``learning_rate``, ``gradient``, ``batch_size``, ``seconds``, float64 [epochs], as
          :class:`hallutrace.detect.nets.history.Epoch` has them.
        - ``evaluations``: that are running; ``name``, ``done``, ``total`` (fits),
          ``idle_seconds``, ``rows`` (label, done, total).
        - ``cursor``: for the next call.

    Raises:
        NotInRunError: no detector was trained on the run, and no evaluation is running.

    Examples:
        >>> training_data(ViewedRun(hallutrace.open(run)))
        Traceback (most recent call last):
        hallutrace.errors.NotInRunError: No detector was trained on this run: `hallutrace train ...
    """
    before, cursors = _cursors(cursor), dict[str, str]()
    given = [] if viewed.detector is None else [viewed.detector]
    found = list(find_for(viewed.store, detectors=given).detectors if given else ())
    known = {one.folder.resolve() for one in found}
    found += [one for one in find_for(viewed.store).detectors if one.folder not in known]
    trainings = [_training(one, before, cursors) for one in found]
    evaluations = list(_evaluations(viewed))
    if not trainings and not evaluations:
        raise NotInRunError(
            "No detector was trained on this run: `hallutrace train RUN --detector NAME --label "
            "NAME --out detectors/NAME` trains one"
        )
    return {
        "trainings": trainings,
        "evaluations": [_progress(one) for one in evaluations],
        "cursor": json.dumps(cursors, sort_keys=True),
    }


def _training(
    found: FoundDetector, before: dict[str, str], cursors: dict[str, str]
) -> dict[str, Any]:
    """One detector; ``cursors`` gets those of what was read."""
    id_, latest = _id(found.folder), found.modified
    parts: list[dict[str, Any]] | None = []
    problem = None
    done = f"done-{found.modified}"
    if found.is_done and before.get(id_) == done:
        parts = None
    for name, folder in _parts(found.folder) if parts is not None else ():
        part = _id(folder)
        try:
            news, cursor = read_since(folder, before.get(part))
        except DamagedError as error:
            problem = str(error)
            continue
        latest = max(latest, *(_modified(folder / one) for one in (LOG, WHOLE)))
        parts = [*(parts or []), {"id": part, "name": name, **_columns(news)}]
        if not found.is_done:
            cursors[part] = cursor
    if found.is_done:
        cursors[id_] = done
    return {
        "id": id_,
        "name": found.folder.name,
        "detector": found.name,
        "label": found.label,
        "is_done": found.is_done,
        "validation_auroc": found.validation_auroc,
        "idle_seconds": max(0.0, time.time() - latest),
        "problem": problem,
        "parts": parts,
    }


def _columns(news: News) -> dict[str, Any]:
    columns = {
        field.name: np.array([getattr(one, field.name) for one in news.epochs], np.float64)
        for field in fields(Epoch)
    }
    return {
        "kept": news.kept,
        "notes_kept": news.notes_kept,
        "notes": list(news.notes),
        "columns": columns,
    }


def _parts(folder: Path) -> Iterator[tuple[str, Path]]:
    """Folders with a history: of the detector itself, or of its networks."""
    work = folder / WORK
    inside = sorted(one for one in work.iterdir() if one.is_dir()) if work.is_dir() else []
    for one in [work, *inside[:_MOST_PARTS]]:
        if (one / LOG).is_file() or (one / WHOLE).is_file():
            yield ("" if one is work else one.name), one


def _evaluations(viewed: ViewedRun) -> Iterator[FitProgress]:
    run, fingerprint = viewed.store.folder.resolve(), viewed.store.manifest.fingerprint
    folders = candidates(run, Path.cwd(), [])
    if viewed.evaluation is not None and viewed.evaluation.resolve() not in folders:
        folders.append(viewed.evaluation.resolve())
    for folder in folders:
        progress = fit_progress(folder, fingerprint)
        if progress is not None:
            yield progress


def _progress(one: FitProgress) -> dict[str, Any]:
    return {
        "name": one.folder.name,
        "done": one.done,
        "total": one.total,
        "idle_seconds": one.idle_seconds,
        "rows": [list(row) for row in one.rows],
    }


def _cursors(text: str | None) -> dict[str, str]:
    """Cursors by part; anything else than what was given out reads from the start."""
    try:
        found = json.loads(text or "{}")
    except (ValueError, RecursionError):
        return {}
    if not isinstance(found, dict):
        return {}
    return {name: one for name, one in found.items() if isinstance(one, str)}


def _id(folder: Path) -> str:
    """Stands for a folder in the page, which learns no path."""
    return hashlib.blake2b(str(folder.resolve()).encode(), digest_size=6).hexdigest()


def _modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
