"""Threads that wait sleep soon, unless the user has decided otherwise or torch is loaded."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from hallutrace.cpu_threads import USER_SETTINGS, core_threads_like_torch, limit_spinning

SHOW = "import os, hallutrace; print(os.environ.get('GOMP_SPINCOUNT'))"


def spins_of_a_new_process(code: str = SHOW, **environment: str) -> str:
    """What a fresh interpreter has for GOMP_SPINCOUNT after importing hallutrace."""
    clean = {name: value for name, value in os.environ.items() if name not in USER_SETTINGS}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=clean | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


def test_importing_hallutrace_lets_threads_sleep_soon() -> None:
    assert int(spins_of_a_new_process()) < 10_000


@pytest.mark.parametrize("name", USER_SETTINGS)
def test_what_the_user_has_decided_stays(name: str) -> None:
    expected = "7" if name == "GOMP_SPINCOUNT" else "None"
    assert spins_of_a_new_process(**{name: "7" if name != "OMP_WAIT_POLICY" else "active"}) == (
        expected
    )


def test_nothing_is_set_once_torch_is_loaded() -> None:
    import torch  # noqa: F401

    environ: dict[str, str] = {}
    limit_spinning(environ)
    assert not environ


def test_the_core_works_on_as_many_threads_as_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from hallutrace import _core

    monkeypatch.delenv("RAYON_NUM_THREADS", raising=False)
    before, usual = torch.get_num_threads(), _core.get_threads()
    torch.set_num_threads(3)
    try:
        with core_threads_like_torch():
            assert _core.get_threads() == 3
        assert _core.get_threads() == usual
        monkeypatch.setenv("RAYON_NUM_THREADS", "2")
        with core_threads_like_torch():
            assert _core.get_threads() == usual
    finally:
        torch.set_num_threads(before)
