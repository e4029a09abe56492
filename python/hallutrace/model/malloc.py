"""The C library's allocator, told to keep what is freed while it is soon wanted again."""

from __future__ import annotations

import ctypes
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

# Parameters of glibc's mallopt(3).
TRIM_THRESHOLD, MMAP_THRESHOLD, MMAP_MAX = -1, -3, -4

# The largest that glibc's own thresholds grow to as large blocks are freed, and its own MMAP_MAX.
USUAL = {MMAP_MAX: 65_536, MMAP_THRESHOLD: 32 << 20, TRIM_THRESHOLD: 64 << 20}
KEEPING = {MMAP_MAX: 0, TRIM_THRESHOLD: 2**31 - 1}

# With one of these, whoever started the process has chosen.
CHOICES = ("GLIBC_TUNABLES", "MALLOC_MMAP_MAX_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_")

# One entry for each thread that is within `freed_memory_kept`.
_WITHIN: list[ctypes.CDLL] = []
_COUNTING = threading.Lock()


@contextmanager
def freed_memory_kept() -> Iterator[None]:
    """Within it, memory that is freed stays with the process; afterwards it goes back.

    glibc returns blocks above 32 MB to the system when they are freed, and takes each anew, page by
    page. Logits of 80 beams and a vocabulary of 152,000 are 49 MB, of which a step of beam search
    makes four: 55 ms, and 27 within this (copy, log-softmax, sum and top-k; two cores).

    Elsewhere than with glibc, or where the environment sets up the allocator, nothing changes. Of
    several threads within it, the last one to leave gives the memory back.
    """
    libc = _glibc()
    if libc is None:
        yield
        return
    with _COUNTING:
        _WITHIN.append(libc)
        _set(libc, KEEPING)
    try:
        yield
    finally:
        with _COUNTING:
            _WITHIN.pop()
            if not _WITHIN:
                _set(libc, USUAL)
                libc.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    if sys.platform != "linux" or any(choice in os.environ for choice in CHOICES):
        return None
    libc = ctypes.CDLL(None)
    return libc if hasattr(libc, "mallopt") else None


def _set(libc: ctypes.CDLL, parameters: dict[int, int]) -> None:
    for parameter, value in parameters.items():
        libc.mallopt(parameter, value)
