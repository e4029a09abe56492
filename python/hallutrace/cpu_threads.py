"""How many threads work, and how long torch's spin while they wait for each other.

OpenMP's threads spin for milliseconds at every barrier before they sleep. Two processes on the same
cores then hold the cores that the other one waits for: two extractions on two cores went at 2% of
the speed of one alone. ``benches/side_by_side.py`` measures it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager

# Turns of the loop in which GNU's OpenMP waits before it sleeps; its own default is 300,000.
SPINS = 6000

# Milliseconds that LLVM's and Intel's OpenMP wait; their own default is 200.
BLOCKTIME = 1

# Variables by which a user has already decided how threads wait.
DECIDED = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")


def limit_spinning(environ: MutableMapping[str, str] | None = None) -> None:
    """Lets OpenMP's threads sleep soon; read once, when torch is loaded.

    Does nothing where torch is loaded already, or where the user has set one of :data:`DECIDED`.

    Args:
        environ: the environment to change; that of this process unless given.
    """
    environ = os.environ if environ is None else environ
    if "torch" not in sys.modules and not any(name in environ for name in DECIDED):
        environ["GOMP_SPINCOUNT"] = str(SPINS)
        environ["KMP_BLOCKTIME"] = str(BLOCKTIME)


@contextmanager
def as_many_as_torch() -> Iterator[None]:
    """Within it, the core works on as many threads as torch, unless RAYON_NUM_THREADS says."""
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
