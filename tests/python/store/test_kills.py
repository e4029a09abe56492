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
from conftest import posix_only
from hallutrace.store.failures import FailureLog
from tiny_models import save_tiny

pytestmark = posix_only

QUESTIONS = 48
TOO_LONG = 19  # a question that fails, so that there is a failure to be recorded once
KILLS = int(os.environ.get("HALLUTRACE_KILLS", "4"))  # the long series is 40
LONG = "HALLUTRACE_KILLS" in os.environ
# Of several processes on one run: how many, how many of them are killed, how often in all.
PROCESSES, VICTIMS, SHARED_KILLS = (4, 2, KILLS) if LONG else (3, 1, 1)
TORCH = "import torch; torch.set_num_threads(1); from hallutrace.commands.app import main; main()"


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """An extraction of six shards, but for its folder."""
    folder = tmp_path_factory.mktemp("asked")
    lines = [
        {"id": f"q{n}", "question": f"what is {n * 'so '}", "answers": ["a"]}
        for n in range(QUESTIONS)
    ]
    lines[TOO_LONG]["question"] = 100 * "why "
    (folder / "questions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    save_tiny(folder / "model")
    # Groups of batches are synced after so little that there is always something to go on from.
    options = f"--model {folder}/model --questions {folder}/questions.jsonl --shard-size 8"
    options += " --batch-size 2 --max-new-tokens 6 --device cpu"
    return [sys.executable, "-c", TORCH, "extract", *options.split()]


def start(command: list[str], run: Path, *more: str) -> subprocess.Popen[bytes]:
    quiet = subprocess.DEVNULL
    return subprocess.Popen([*command, "--out", str(run), *more], stdout=quiet, stderr=quiet)


def files(run: Path) -> dict[str, bytes]:
    """Everything of a run, by path; of its failures, which have their times, the number."""
    paths = (path for path in run.rglob("*") if path.is_file())
    found = {str(path.relative_to(run)): path.read_bytes() for path in paths}
    if "failures.jsonl" in found:
        failures = FailureLog(run / "failures.jsonl").read()
        assert {(one.id, one.stage, one.attempts) for one in failures} == {
            (f"q{TOO_LONG}", "prompt", 1)
        }
        found["failures.jsonl"] = str(len(failures)).encode()
    return found


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
            assert [trace.id for trace in store] == [
                f"q{n}" for n in range(QUESTIONS) if n != TOO_LONG
            ]
        runs += 1
    print(f"{kills} kills, {runs} runs, all with the same bytes")


@pytest.fixture(scope="module")
def shared(
    command: list[str],
    undisturbed: tuple[dict[str, bytes], float],
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[list[str], dict[str, bytes]]:
    """What several processes are to extract, and its files as one process makes them.

    In the long series the small model answers 3,600 questions with beams, in 40 shards.
    """
    if not LONG:
        return command, undisturbed[0]
    options = "--questions demo:3600 --shard-size 90 --batch-size 16 --num-beams 5 --device cpu"
    long = [sys.executable, "-c", TORCH, "extract", *options.split()]
    run = tmp_path_factory.mktemp("shared") / "run"
    assert start(long, run).wait() == 0
    assert len(list((run / "shards").glob("*.json"))) == 40
    return long, files(run)


def has_claim(run: Path, pid: int) -> bool:
    """Whether a process is at work on a shard."""
    for path in (run / "partial").glob("*.claim*"):
        try:
            if json.loads(path.read_text())["pid"] == pid:
                return True
        except (OSError, ValueError):
            continue  # on its way to or from the disk
    return False


def kill_over_and_over(command: list[str], run: Path, dice: random.Random, most: int) -> int:
    """Several processes on one run until the undisturbed ones are done; how often one was killed.

    Two of them split the shards, and the others take what is free. A victim is killed at a random
    moment after it claimed a shard, and starts again.
    """

    def start_worker(number: int) -> subprocess.Popen[bytes]:
        share = ["--worker", f"{number}/2"] if number < 2 else []
        return start(command, run, *share)

    workers = [start_worker(number) for number in range(PROCESSES)]
    kills = 0
    while any(worker.poll() is None for worker in workers[VICTIMS:]):
        for number, worker in enumerate(workers[:VICTIMS]):
            if kills < most and worker.poll() is None and has_claim(run, worker.pid):
                time.sleep(dice.uniform(0, 1.5))
                if worker.poll() is None:
                    worker.kill()
                    worker.wait()
                    kills += 1
                workers[number] = start_worker(number)
        time.sleep(0.01)
    assert [worker.wait() for worker in workers] == [0] * PROCESSES
    return kills


def test_workers_share_a_run(shared: tuple[list[str], dict[str, bytes]], tmp_path: Path) -> None:
    command, right = shared
    dice = random.Random(7)
    kills = runs = 0
    while kills < SHARED_KILLS:
        run = tmp_path / f"run-{runs}"
        kills += kill_over_and_over(command, run, dice, SHARED_KILLS - kills)
        # What a victim held when the others came by is left to whoever comes next.
        assert start(command, run).wait() == 0
        assert files(run) == right
        runs += 1
    print(f"{kills} kills of {VICTIMS} of {PROCESSES} processes, {runs} runs, the same bytes")


def interruptible(command: list[str]) -> subprocess.Popen[str]:
    """A process that hears SIGINT, also where these tests run in the background and ignore it."""
    return subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def test_an_interrupt_says_how_to_go_on(
    command: list[str], undisturbed: tuple[dict[str, bytes], float], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    process = interruptible([*command, "--out", str(run)])
    while not (run / "shards" / "00000.safetensors").exists():
        time.sleep(0.01)
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, error = process.communicate()
    assert process.returncode == 130
    assert "Traceback" not in error
    assert "Stopped. Committed shards are safe" in error
    assert f"--out {run}" in " ".join(error.partition("To go on: ")[2].split())
    assert start(command, run).wait() == 0
    assert files(run) == undisturbed[0]


def test_an_interrupt_while_the_model_loads_is_no_error(command: list[str], tmp_path: Path) -> None:
    process = interruptible([*command, "--out", str(tmp_path / "run")])
    assert process.stderr is not None
    first = process.stderr.readline()
    assert first.startswith("Loading torch")
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate()
    assert process.returncode == 130
    assert "Traceback" not in error
