"""Random numbers of torch from a seed, with the caller's left as they were."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

_GENERATOR = threading.RLock()


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Within it, torch's global generators start from a seed; afterwards they go on as before.

    The generators are those of the whole process, so one thread at a time is within it.

    Args:
        seed: of the generators of the CPU and, on a GPU, of all GPUs.
        device: on which numbers are drawn; on a CPU, GPUs are left alone.

    Example:
        >>> with seeded(3, torch.device("cpu")):
        ...     one = torch.rand(2)
        >>> with seeded(3, torch.device("cpu")):
        ...     torch.equal(torch.rand(2), one)
        True
    """
    devices = range(torch.cuda.device_count()) if device.type == "cuda" else []
    with _GENERATOR, torch.random.fork_rng(devices=devices):
        state = torch.mps.get_rng_state() if device.type == "mps" else None
        torch.manual_seed(seed)
        try:
            yield
        finally:
            if state is not None:
                torch.mps.set_rng_state(state)
