"""Checkpoints of a training: safetensors with its facts as JSON in the same file, never pickle.

One file holds the tensors and the facts, and takes its place under its name whole, so a kill at any
point leaves the checkpoint of one epoch or of the other. ``last.safetensors`` has all that going on
needs: weights, the best weights so far, AdamW's moments, states of the random generators. The
others hold weights alone: ``best.safetensors``, and ``epoch-0007.safetensors`` of the best few.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch

from hallutrace import atomic_files
from hallutrace.atomic_files import storage_errors
from hallutrace.canonical_json import canonical
from hallutrace.errors import DamagedError

LAST, BEST = "last.safetensors", "best.safetensors"
SCHEMA = 1
_KEY = "hallutrace"  # one metadata key: safetensors orders several anew in each process

Tensors = dict[str, torch.Tensor]


def write(path: Path, tensors: Tensors, facts: dict[str, Any]) -> None:
    """Writes a checkpoint, whole or not at all.

    Args:
        path: of the file; its folder is made.
        tensors: of any dtype and shape.
        facts: JSON-able.

    Raises:
        StorageError: the file cannot be written.
    """
    from safetensors.torch import save

    content = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    # The tensors alone, in their order, are what the checksum is of.
    header = {**facts, "schema": SCHEMA, "checksum": _checksum(content)}
    write_bytes(path, save(content, {_KEY: canonical(header).decode()}))


def read(path: Path) -> tuple[Tensors, dict[str, Any]]:
    """Reads a checkpoint.

    Raises:
        DamagedError: a file that is not what was written, or of another schema.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            facts = json.loads((file.metadata() or {})[_KEY])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if facts["schema"] != SCHEMA or facts["checksum"] != _checksum(tensors):
            raise ValueError("another schema or checksum")
    except (SafetensorError, KeyError, TypeError, ValueError, OSError) as error:
        raise DamagedError(
            f"Expected a checkpoint as it was written, got {type(error).__name__} {error} in "
            f"{path} - remove the folder of checkpoints, and train from the start"
        ) from None
    return tensors, facts


def write_bytes(path: Path, data: bytes) -> None:
    """Writes a file, whole or not at all, and makes its folder.

    Raises:
        StorageError: it cannot be written.
    """
    with storage_errors(f"write {path}", "choose another folder"):
        atomic_files.write(path, data)


def keep_best(folder: Path, values: dict[int, float], keep: int) -> None:
    """Removes checkpoints of epochs that are not among the best.

    Args:
        folder: of checkpoints.
        values: of each epoch, higher is better; of equal ones the earlier is better.
        keep: how many stay.
    """
    for epoch in set(values) - set(best_epochs(values, keep)):
        path_of(folder, epoch).unlink(missing_ok=True)


def best_epochs(values: dict[int, float], keep: int) -> list[int]:
    """The epochs of the largest values, best first."""
    return sorted(values, key=lambda epoch: (-values[epoch], epoch))[:keep]


def path_of(folder: Path, epoch: int) -> Path:
    """File of an epoch's checkpoint."""
    return folder / f"epoch-{epoch:04d}.safetensors"


def _checksum(tensors: Tensors) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
