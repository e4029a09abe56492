"""Freed memory stays with the process while that is asked for, and goes back afterwards."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from hallutrace.model import malloc

LARGE = 64 << 20
PAGE = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 0
# In a process of its own: what the allocator has done before decides what it does.
CHILD = f"""
import ctypes
from hallutrace.model.malloc import freed_memory_kept

libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.free.argtypes = [ctypes.c_void_p]

def process_keeps():
    block = libc.malloc({LARGE})
    ctypes.memset(block, 1, {LARGE})
    libc.free(ctypes.c_void_p(block))
    resident = int(open("/proc/self/statm").read().split()[1]) * {PAGE}
    return resident > {LARGE}

print(process_keeps())
with freed_memory_kept():
    print(process_keeps())
print(process_keeps())
"""

glibc = pytest.mark.skipif(malloc._glibc() is None, reason="needs glibc's allocator as it is")


def says(**environment: str) -> list[str]:
    """What the child prints, in an environment with these variables besides."""
    done = subprocess.run(
        [sys.executable, "-c", CHILD],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.split()


@glibc
def test_freed_memory_stays_only_within() -> None:
    assert says() == ["False", "True", "False"]


@glibc
@pytest.mark.parametrize("choice", ["MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_"])
def test_an_allocator_that_the_environment_sets_up_is_left_alone(choice: str) -> None:
    assert says(**{choice: "131072"}) == ["False"] * 3


def test_elsewhere_nothing_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert malloc._glibc() is None
    with malloc.freed_memory_kept():
        pass
