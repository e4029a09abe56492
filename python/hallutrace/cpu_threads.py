"""CPUs and threads: how many there are, and how long OpenMP's threads spin while they wait.

OpenMP's threads spin for milliseconds at every barrier before they sleep. With two processes on the
same cores, each holds the cores that the other one waits for: two extractions on two cores ran at
2% of the speed of one alone. ``benches/side_by_side.py`` measures it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager

# Turns of the loop in which GNU's OpenMP waits before it sleeps; its own default is 300,000.
SPIN_COUNT = 6000

# Milliseconds that LLVM's and Intel's OpenMP wait; their own default is 200.
BLOCKTIME = 1

# Environment variables by which users decide how threads wait.
USER_SETTINGS = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")


def available_cpus() -> int:
    """CPUs that this process may run on: fewer than the machine has, where it is bound to some.

    Examples:
        >>> available_cpus() >= 1
        True
    """
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)))
    return os.cpu_count() or 1


def limit_spinning(environ: MutableMapping[str, str] | None = None) -> None:
    """Makes OpenMP's threads sleep soon; OpenMP reads this when torch is loaded.

    Does nothing where torch is loaded already, or where one of :data:`USER_SETTINGS` is set.

    Args:
        environ: the environment to change; that of this process unless given.
    """
    environ = os.environ if environ is None else environ
    if "torch" not in sys.modules and not any(name in environ for name in USER_SETTINGS):
        environ["GOMP_SPINCOUNT"] = str(SPIN_COUNT)
        environ["KMP_BLOCKTIME"] = str(BLOCKTIME)


@contextmanager
def core_threads_like_torch() -> Iterator[None]:
    """Within it, the core uses as many threads as torch, unless RAYON_NUM_THREADS is set."""
    import torch

    from hallutrace import _core

    if "RAYON_NUM_THREADS" in os.environ:
        yield
        return
    _core.set_threads(torch.get_num_threads())
    try:
        yield
    finally:
        _core.set_threads(None)
