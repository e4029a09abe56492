"""Resolves the requested device to one that this machine has."""

from __future__ import annotations

from hallutrace.errors import ModelError
from hallutrace.option_names import parameter


def resolve_device(device: str) -> str:
    """The device to use; ``auto`` is the first available of cuda, mps and cpu.

    Args:
        device: ``auto`` or the name of a torch device.

    Raises:
        ModelError: this machine has no such device.

    Examples:
        >>> resolve_device("cpu")
        'cpu'
    """
    import torch

    if device == "auto":
        if torch.cuda.is_available():
            return "cuda"
        return "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        requested = torch.device(device)
    except (RuntimeError, ValueError):
        raise ModelError(
            f"Expected a device such as cpu, cuda, cuda:1 or mps, got {device!r} - change "
            f"{parameter('device')}"
        ) from None
    if requested.type == "cuda" and not torch.cuda.is_available():
        raise ModelError(
            f"Expected a GPU for {parameter('device', device)}, got none that torch can see - use "
            f"{parameter('device', 'cpu')}, or install a build of torch for the GPU"
        )
    if requested.type == "cuda" and (requested.index or 0) >= torch.cuda.device_count():
        raise ModelError(
            f"Expected one of the {torch.cuda.device_count()} GPUs for {parameter('device')}, got "
            f"{device!r} - they are numbered from 0"
        )
    if requested.type not in ("cpu", "cuda"):
        _check_usable(device)
    return device


def computes_in_float32(device: str) -> bool:
    """Whether float32 is the default dtype on a device: on cpu and mps."""
    import torch

    return torch.device(device).type in ("cpu", "mps")


def _check_usable(device: str) -> None:
    """Raises :class:`ModelError` for a device on which torch cannot add and copy a tensor."""
    import torch

    try:
        # Compare the result, since the device `meta` raises no error but holds no data.
        works = bool((torch.ones(1, device=device) + 1).cpu() == 2)
    except Exception as error:
        reason = " ".join(str(error).split())
        raise ModelError(
            f"Expected a device that this build of torch can use, got {device!r} ({reason[:200]}) "
            f"- use {parameter('device', 'cpu')}"
        ) from None
    if not works:
        raise ModelError(
            f"Expected a device that computes, got {device!r} - use {parameter('device', 'cpu')}"
        )
