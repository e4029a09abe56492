"""Temporary seeding of torch's global random number generators."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

_LOCK = threading.RLock()


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """A context in which torch's global generators are seeded; their state is restored on exit.

    The generators are global, so only one thread at a time can be in the context.

    Args:
        seed: seed of the CPU generator and, if ``device`` is a GPU, of all GPUs.
        device: the device that draws numbers; for the CPU, the state of GPUs is not saved.

    Examples:
        >>> with seeded(3, torch.device("cpu")):
        ...     one = torch.rand(2)
        >>> with seeded(3, torch.device("cpu")):
        ...     torch.equal(torch.rand(2), one)
        True
    """
    devices = range(torch.cuda.device_count()) if device.type == "cuda" else []
    with _LOCK, torch.random.fork_rng(devices=devices):
        state = torch.mps.get_rng_state() if device.type == "mps" else None
        torch.manual_seed(seed)
        try:
            yield
        finally:
            if state is not None:
                torch.mps.set_rng_state(state)
