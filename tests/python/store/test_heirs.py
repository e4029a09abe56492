"""A process that was suspended for so long that another inherited its shard."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import RUN_OPTIONS, Extract, Notes, posix_only
from hallutrace.store import claims, processes
from hallutrace.store.claims import Claim, claim, last_holder

pytestmark = posix_only

# An extraction that stops itself in its second batch, in a namespace that others do not see.
SUSPENDED = """
import os, signal, sys
import torch; torch.set_num_threads(1)
from hallutrace.capture import replay
from hallutrace.store import processes
from hallutrace.commands.app import main
processes._namespace = lambda: "of-its-own"
whole, calls = replay.replay, 0
def stopping(*args, **kwargs):
    global calls
    calls += 1
    if calls == 2:
        os.kill(os.getpid(), signal.SIGSTOP)
    return whole(*args, **kwargs)
replay.replay = stopping
main()
"""


def files_of(folder: Path) -> dict[str, bytes]:
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


@pytest.fixture
def suspended(checkpoint: Path, questions: Path, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that is suspended at work on the first shard, and has been silent for long."""
    options = {"model": checkpoint, "questions": questions, "out": tmp_path / "run", **RUN_OPTIONS}
    words = [
        word
        for name, value in options.items()
        for word in ("--" + name.replace("_", "-"), str(value))
    ]
    process = subprocess.Popen(
        [sys.executable, "-c", SUSPENDED, "extract", *words],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    try:
        _, status = os.waitpid(process.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status)
        path, holder = last_holder(tmp_path / "run" / "partial", "00000") or (tmp_path, None)
        assert holder is not None
        assert holder.state() is processes.State.UNKNOWN
        os.utime(path, (0, time.time() - claims.SILENCE - 5))
        yield process
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()


def awakened(process: subprocess.Popen[str]) -> str:
    """What a process that wakes up says."""
    process.send_signal(signal.SIGCONT)
    _, error = process.communicate()
    assert process.returncode == 2, error
    assert "Traceback" not in error
    return " ".join(error.rpartition("Error: ")[2].split())


def test_a_process_that_wakes_leaves_its_heir_alone(
    suspended: subprocess.Popen[str], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    heir = claim(run / "partial", "00000", 3)
    assert isinstance(heir, Claim)
    with heir:
        before = files_of(run)
        said = awakened(suspended)
        assert said.startswith(
            f"Expected to hold the shard 00000 until it is committed, got process {os.getpid()} on "
        )
        assert "gave no sign for 300 s" in said
        assert files_of(run) == before
        heir.check()


def test_a_process_that_wakes_leaves_what_was_committed_alone(
    suspended: subprocess.Popen[str], run_extract: Extract, tmp_path: Path
) -> None:
    assert run_extract().traces == 7
    before = files_of(tmp_path / "run")
    assert "got its claim removed: the shard was committed by another" in awakened(suspended)
    assert files_of(tmp_path / "run") == before
    run_extract(out=tmp_path / "alone")
    assert files_of(tmp_path / "alone") == before


def test_what_is_held_by_a_silent_process_is_waited_for(
    suspended: subprocess.Popen[str],
    run_extract: Extract,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """After a restart of a container, its claims are those of a process that nobody sees."""
    monkeypatch.setattr(claims, "SILENCE", 3.0)
    monkeypatch.setattr(claims, "TOUCH", 0.5)
    path, holder = last_holder(tmp_path / "run" / "partial", "00000") or (tmp_path, None)
    os.utime(path, (0, time.time()))
    notes = Notes()
    assert run_extract(notes).traces == 7
    assert holder is not None
    who = f"process {holder.pid} on {holder.host}"
    assert notes.notes[2:] == [  # after what was read of the source
        f"Shard 00000 is being made by {who}.",
        f"Waiting for a sign of {who}, which cannot be seen from here (5 minutes at most).",
    ]
    assert (notes.answers, notes.begun) == (7, (7, 0))
