"""Errors as a client is told of them: a status and a sentence, without the places of files."""

from __future__ import annotations

import re
from pathlib import Path

from hallutrace.errors import (
    DamagedError,
    HallutraceError,
    InputError,
    MissingExtraError,
    ModelError,
    NotARunError,
    NotInRunError,
    StorageError,
)
from hallutrace.viewer.explorer.bodies import TooLargeError
from hallutrace.viewer.explorer.catalog import Catalog
from hallutrace.viewer.explorer.own_model import BusyError

# The most specific class first.
_STATUS: tuple[tuple[type[HallutraceError], int], ...] = (
    (TooLargeError, 413),
    (BusyError, 409),
    (NotInRunError, 404),
    (NotARunError, 404),
    (InputError, 400),
    (ModelError, 400),
    (DamagedError, 409),
    (MissingExtraError, 501),
    (StorageError, 500),
)


def message_of(error: HallutraceError, folders: dict[Path, str]) -> str:
    """An error in words, without the places of files.

    Args:
        error: what happened.
        folders: names of folders by their paths.

    Examples:
        >>> message_of(InputError("Expected a file in /data/runs/demo/shards/0.json"), {})
        'Expected a file in 0.json'
    """
    text = " ".join(str(error).split())
    for path in sorted(folders, key=lambda one: -len(str(one))):
        text = text.replace(str(path), folders[path])
    return re.sub(r"(?<![\w.:/\\])(?:[A-Za-z]:[\\/]|[\\/])(?:[^\s\\/'\"`,;]+[\\/])+", "", text)


def status_of(error: HallutraceError) -> int:
    """The HTTP status of an error.

    Examples:
        >>> status_of(NotInRunError("no labels")), status_of(DamagedError("a shard"))
        (404, 409)
    """
    return next((status for kind, status in _STATUS if isinstance(error, kind)), 500)


def known_folders(catalog: Catalog) -> dict[Path, str]:
    """Names of all folders of the catalog by their paths."""
    made = [one.folder for one in (*catalog.evaluations, *catalog.detectors)]
    return {folder: folder.name for folder in (*catalog.runs.values(), *made)}
