"""Checkpoints of a training: tensors and JSON in one safetensors file, never pickle."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from hallutrace import atomic_files
from hallutrace.atomic_files import storage_errors
from hallutrace.canonical_json import canonical
from hallutrace.errors import DamagedError

LAST, BEST = "last.safetensors", "best.safetensors"
SCHEMA = 2
_KEY = "hallutrace"  # one metadata key: safetensors orders several anew in each process

Tensors = dict[str, torch.Tensor]


def write(path: Path, tensors: Tensors, content: dict[str, Any]) -> None:
    """Writes a checkpoint, whole or not at all.

    Args:
        path: the file; its folder is made.
        tensors: on the CPU, of any dtype and shape.
        content: JSON-able.

    Raises:
        StorageError: the file cannot be written.
    """
    from safetensors.torch import save

    text = canonical({**content, "schema": SCHEMA}).decode()
    header = json.dumps([_checksum(tensors, text), text])
    with storage_errors(f"write {path}", "choose another folder"):
        atomic_files.write(path, save(tensors, {_KEY: header}))


def read(path: Path) -> tuple[Tensors, dict[str, Any]]:
    """Reads what :func:`write` wrote.

    Raises:
        DamagedError: the file is damaged, or of another schema.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            checksum, text = json.loads((file.metadata() or {})[_KEY])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        content: dict[str, Any] = json.loads(text)
        if content["schema"] != SCHEMA or checksum != _checksum(tensors, text):
            raise ValueError("another schema or checksum")
    except (SafetensorError, KeyError, TypeError, ValueError, OSError) as error:
        raise DamagedError(
            f"Expected a checkpoint as it was written, got {type(error).__name__} {error} in "
            f"{path} - remove the folder of checkpoints, and train from the start"
        ) from None
    return tensors, content


def with_prefix(prefix: str, tensors: Mapping[str, torch.Tensor]) -> Tensors:
    """Copies on the CPU, with a prefix before their names."""
    return {f"{prefix}{name}": t.detach().to("cpu", copy=True) for name, t in tensors.items()}


def without_prefix(prefix: str, tensors: Tensors) -> Tensors:
    """The tensors whose names have the prefix, by the rest of the name."""
    return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}


def _checksum(tensors: Tensors, text: str) -> str:
    from safetensors.torch import save

    return hashlib.sha256(save(tensors) + text.encode()).hexdigest()
