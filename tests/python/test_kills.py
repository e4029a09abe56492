"""Real processes, really killed: the same command again, until it is done, gives the same bytes."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import hallutrace
from tiny_models import save_tiny

QUESTIONS = 48
KILLS = int(os.environ.get("HALLUTRACE_KILLS", "4"))  # the long series is 40


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """An extraction of six shards, but for its folder."""
    folder = tmp_path_factory.mktemp("asked")
    lines = [
        {"id": f"q{n}", "question": f"what is {n * 'so '}", "answers": ["a"]}
        for n in range(QUESTIONS)
    ]
    (folder / "questions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    save_tiny(folder / "model")
    # Groups of batches are synced after so little that there is always something to go on from.
    options = f"--model {folder}/model --questions {folder}/questions.jsonl --shard-size 8"
    options += " --batch-size 2 --max-new-tokens 6 --device cpu"
    start = "import torch; torch.set_num_threads(1); from hallutrace.cli import main; main()"
    return [sys.executable, "-c", start, "extract", *options.split()]


def start(command: list[str], run: Path, *more: str) -> subprocess.Popen[bytes]:
    quiet = subprocess.DEVNULL
    return subprocess.Popen([*command, "--out", str(run), *more], stdout=quiet, stderr=quiet)


def files(run: Path) -> dict[str, bytes]:
    """Everything of a run but its failures, by path."""
    paths = (path for path in run.rglob("*") if path.is_file())
    return {str(path.relative_to(run)): path.read_bytes() for path in paths}


def ended(process: subprocess.Popen[bytes], seconds: float, may_kill: bool) -> bool:
    """Whether a process ended by itself, and well; after the time it is killed."""
    try:
        assert process.wait(seconds if may_kill else None) == 0
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.wait()
        return False
    return True


@pytest.fixture(scope="module")
def undisturbed(
    command: list[str], tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, bytes], float]:
    """The files of a run that nobody disturbed, and how long it took."""
    run = tmp_path_factory.mktemp("undisturbed") / "run"
    began = time.monotonic()
    assert start(command, run).wait() == 0
    return files(run), time.monotonic() - began


def test_kills_change_no_byte(
    command: list[str], undisturbed: tuple[dict[str, bytes], float], tmp_path: Path
) -> None:
    right, whole = undisturbed
    dice = random.Random(5)
    kills = runs = 0
    while kills < KILLS:
        run = tmp_path / f"run-{runs}"
        while not ended(start(command, run), whole * dice.uniform(0.55, 0.95), kills < KILLS):
            kills += 1
        assert files(run) == right
        with hallutrace.open(run) as store:
            assert [trace.id for trace in store] == [f"q{n}" for n in range(QUESTIONS)]
        runs += 1
    print(f"{kills} kills, {runs} runs, all with the same bytes")


def test_workers_share_a_run(
    command: list[str], undisturbed: tuple[dict[str, bytes], float], tmp_path: Path
) -> None:
    right, whole = undisturbed
    run = tmp_path / "run"
    # Two that split the shards, one of them killed, and one that takes what is free.
    workers = [start(command, run, "--worker", f"{n}/2") for n in range(2)]
    workers.append(start(command, run))
    time.sleep(whole)
    workers[0].kill()
    for worker in workers:
        worker.wait()
    assert start(command, run).wait() == 0
    assert files(run) == right


def test_an_interrupt_says_how_to_go_on(command: list[str], tmp_path: Path) -> None:
    process = subprocess.Popen(
        [*command, "--out", str(tmp_path / "run")], stderr=subprocess.PIPE, text=True
    )
    while not (tmp_path / "run" / "partial").exists():
        time.sleep(0.05)
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, error = process.communicate()
    assert process.returncode == 130
    assert "Traceback" not in error
    assert "To go on: " in error
    assert start(command, tmp_path / "run").wait() == 0
