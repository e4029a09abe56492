"""A detector on the disk: JSON and safetensors, whole or not at all, never pickle.

``detector.json`` names the checksum of the ``detector.safetensors`` beside it. Both are written
under other names first, then renamed one after the other. A kill between the two leaves
new tensors beside the old JSON, and the new JSON under its other name: reading takes whichever
belongs to the tensors.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hallutrace import atomic_files
from hallutrace.atomic_files import storage_errors
from hallutrace.canonical_json import canonical
from hallutrace.errors import DamagedError, InputError

SCHEMA = 1
FACTS, ARRAYS = "detector.json", "detector.safetensors"
_KINDS = {"name": str, "seed": int, "options": dict, "facts": dict, "origin": dict, "checksum": str}


def write(
    folder: str | PathLike[str], content: dict[str, Any], arrays: dict[str, NDArray[Any]]
) -> None:
    """Writes a detector.

    Args:
        folder: made if it is not there.
        content: name, seed, options, facts and origin of the class, JSON-able.
        arrays: what was fitted, of any dtype and shape that safetensors has.

    Raises:
        StorageError: the folder cannot be written.
    """
    from safetensors.numpy import save

    tensors = save({name: np.ascontiguousarray(array) for name, array in arrays.items()})
    checksum = hashlib.sha256(tensors).hexdigest()
    facts = canonical({**content, "schema": SCHEMA, "checksum": checksum}) + b"\n"
    path = Path(folder)
    with storage_errors(f"write a detector to {path}", "choose another folder"):
        for name, data in ((ARRAYS, tensors), (FACTS, facts)):
            atomic_files.write(path / f"{name}.new", data)
        for name in (ARRAYS, FACTS):
            atomic_files.replace(path / f"{name}.new", path / name)
        atomic_files.sync_folder(path)


def read(folder: str | PathLike[str]) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Reads a detector.

    Args:
        folder: that it was written to.

    Returns:
        What was written as content, and the arrays.

    Raises:
        InputError: no detector there, or one of another schema.
        DamagedError: files that are not what was written.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    path = Path(folder)
    if not (path / FACTS).is_file() or not (path / ARRAYS).is_file():
        raise InputError(
            f"Expected a detector in {path} ({FACTS} and {ARRAYS}), got none - "
            "give the folder that `hallutrace train` wrote"
        )
    tensors = (path / ARRAYS).read_bytes()
    content = _content(path, hashlib.sha256(tensors).hexdigest())
    try:
        return content, load(tensors)
    except SafetensorError as error:
        raise _damaged(path, str(error)) from None


@contextmanager
def damage(folder: str | PathLike[str]) -> Iterator[None]:
    """Tells what a detector cannot take back as damage of the folder that it lies in."""
    try:
        yield
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise _damaged(Path(folder), f"{type(error).__name__} {error}") from None


def _content(path: Path, checksum: str) -> dict[str, Any]:
    """The JSON that belongs to tensors of this checksum."""
    content = _read_json(path / FACTS)
    left = path / f"{FACTS}.new"
    if content["checksum"] != checksum and left.is_file():
        content = _read_json(left)
    if content["checksum"] != checksum:
        raise _damaged(path, f"{ARRAYS} with another checksum")
    return content


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise _damaged(path.parent, f"{error} in {path.name}") from None
    if not isinstance(content, dict) or "schema" not in content:
        raise _damaged(path.parent, f"another kind of file as {path.name}")
    if content["schema"] != SCHEMA:
        raise InputError(
            f"Expected a detector of schema {SCHEMA}, got schema {content['schema']} in "
            f"{path.parent} - read it with the version of hallutrace that wrote it, or train it "
            "again"
        )
    for name, kind in _KINDS.items():
        if not isinstance(content.get(name), kind):
            raise _damaged(path.parent, f"no {name} in {path.name}")
    return content


def _damaged(path: Path, what: str) -> DamagedError:
    return DamagedError(
        f"Expected a detector as it was written, got {what} in {path} - "
        "restore it from a copy, or train it again"
    )
