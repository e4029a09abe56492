"""The training loop: early stopping, checkpoints, kills, going back, a diagnosis."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hallutrace import atomic_files
from hallutrace.detect import Silent
from hallutrace.detect.nets import checkpoints, history
from hallutrace.detect.nets.history import Epoch
from hallutrace.detect.nets.task import Task
from hallutrace.detect.nets.training_options import TrainingOptions
from hallutrace.detect.options import parse
from hallutrace.errors import DamagedError, InputError
from toy_training import fitted, toy

TOY = Path(__file__).parents[1] / "toy_training.py"


class Notes(Silent):
    def __init__(self) -> None:
        self.notes: list[str] = []
        self.epochs: list[tuple[int, float, float]] = []

    def epoch(self, number: int, loss: float, validation_auroc: float, seconds: float) -> None:
        self.epochs.append((number, loss, validation_auroc))

    def note(self, text: str) -> None:
        self.notes.append(text)


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[n], other[n]) for n in one)


def timeless(epochs: list[Epoch]) -> list[Epoch]:
    return [replace(epoch, seconds=0.0) for epoch in epochs]


def broken(
    at: Callable[[int, Task], bool], what: Callable[[torch.Tensor], torch.Tensor]
) -> Callable[[], Task]:
    """A toy whose loss is changed in some steps, counted from 1 over the whole training."""

    def make() -> Task:
        task, steps = toy(), [0]
        plain = task.loss

        def loss_of(rows: np.ndarray, device: torch.device) -> torch.Tensor:
            steps[0] += 1
            loss = plain(rows, device)
            return what(loss) if at(steps[0], task) else loss

        task.loss = loss_of
        return task

    return make


def test_progress_and_best_weights(tmp_path: Path) -> None:
    told = Notes()
    weights, epochs = fitted(tmp_path, progress=told)
    assert [(e.epoch, e.loss, e.validation_auroc) for e in epochs] == told.epochs
    assert epochs[-1].loss < epochs[0].loss
    best = max(epochs, key=lambda epoch: epoch.monitored)
    assert best.monitored > 0.9
    kept, facts = checkpoints.read(tmp_path / "checkpoints" / checkpoints.BEST)
    assert facts["epoch"]["epoch"] == best.epoch and same(weights, kept)


def test_the_same_seed_gives_the_same_weights_and_leaves_the_generator_alone() -> None:
    state = torch.get_rng_state()
    first, second, other = fitted()[0], fitted()[0], fitted(seed=1)[0]
    assert same(first, second) and not same(first, other)
    assert torch.equal(torch.get_rng_state(), state)


def test_early_stopping_takes_the_best_epoch() -> None:
    _, epochs = fitted(epochs=60, patience=3)
    best = max(epochs, key=lambda epoch: epoch.monitored).epoch
    assert len(epochs) < 60 and len(epochs) == best + 3


@pytest.mark.parametrize("scheduler", ["cosine", "none"])
def test_schedulers(scheduler: str) -> None:
    _, epochs = fitted(scheduler=scheduler, epochs=40, patience=30, learning_rate=0.01)
    rates = [epoch.learning_rate for epoch in epochs]
    assert rates[0] == pytest.approx(0.01)
    if scheduler == "none":
        assert set(rates) == {0.01}
    else:
        assert rates[20] == pytest.approx(0.01 * 0.51) and rates == sorted(rates, reverse=True)


def test_checkpoints_and_history(tmp_path: Path) -> None:
    _, epochs = fitted(tmp_path)
    names = {path.name for path in (tmp_path / "checkpoints").iterdir()}
    assert names == {checkpoints.LAST, checkpoints.BEST}
    told = json.loads((tmp_path / "history.json").read_bytes())
    assert [Epoch(**row) for row in told["epochs"]] == epochs
    with (tmp_path / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["loss"]) for row in rows] == [epoch.loss for epoch in epochs]


def test_a_killed_training_goes_on_to_the_same_result(tmp_path: Path) -> None:
    command = [sys.executable, str(TOY), str(tmp_path / "killed"), str(torch.get_num_threads())]
    paths = [str(Path(history.__file__).parents[3]), str(TOY.parent)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as child:
        assert child.stdout is not None
        for line in child.stdout:
            if int(line) == 5:
                child.kill()
                break
    assert child.returncode == -9
    told = Notes()
    weights, epochs = fitted(tmp_path / "killed", progress=told, epochs=40, patience=40)
    assert told.notes[0].startswith("Goes on after epoch ") and told.epochs[0][0] >= 6
    whole, expected = fitted(tmp_path / "whole", epochs=40, patience=40)
    assert same(weights, whole) and timeless(epochs) == timeless(expected)
    again, read = fitted(tmp_path / "killed", epochs=40, patience=40)
    assert same(again, whole) and read == epochs


@pytest.mark.parametrize("last", [3, 12, 13, 14])
def test_a_kill_between_two_files_of_an_epoch_changes_nothing(
    last: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, written = atomic_files.write, [0]

    def dies(path: Path, data: bytes) -> None:
        written[0] += 1
        if written[0] == last:
            raise KeyboardInterrupt
        plain(path, data)

    monkeypatch.setattr(atomic_files, "write", dies)
    with pytest.raises(KeyboardInterrupt):
        fitted(tmp_path / "killed")
    monkeypatch.undo()
    weights, epochs = fitted(tmp_path / "killed")
    whole, expected = fitted(tmp_path / "whole")
    assert same(weights, whole) and timeless(epochs) == timeless(expected)
    names = [
        sorted(p.name for p in (tmp_path / n / "checkpoints").iterdir())
        for n in ("killed", "whole")
    ]
    assert names[0] == names[1]


def test_checkpoints_of_another_training_are_refused(tmp_path: Path) -> None:
    fitted(tmp_path)
    with pytest.raises(InputError, match="got those of another"):
        fitted(tmp_path, learning_rate=0.5)


def test_damaged_checkpoints_are_refused(tmp_path: Path) -> None:
    fitted(tmp_path)
    last = tmp_path / "checkpoints" / checkpoints.LAST
    data = bytearray(last.read_bytes())
    data[-3] ^= 1
    last.write_bytes(bytes(data))
    with pytest.raises(DamagedError, match="Expected a checkpoint as it was written"):
        fitted(tmp_path)
    last.write_bytes(bytes(data[:100]))
    with pytest.raises(DamagedError):
        fitted(tmp_path)


def test_nan_goes_back_with_a_tenth_of_the_learning_rate(tmp_path: Path) -> None:
    told = Notes()
    once = broken(lambda step, _: step == 17, lambda loss: loss * float("nan"))
    _, epochs = fitted(tmp_path, task=once, progress=told, scheduler="none", learning_rate=0.01)
    assert told.notes == [
        "Epoch 3: a loss that is not finite; back to epoch 2 with a tenth of the learning rate "
        "(1 of 3)"
    ]
    assert [epoch.epoch for epoch in epochs] == list(range(1, 13))
    assert [epoch.learning_rate for epoch in epochs] == pytest.approx([0.01] * 2 + [0.001] * 10)
    assert json.loads((tmp_path / "history.json").read_bytes())["notes"] == told.notes
    # What was learnt before is as if nothing had happened.
    plain = fitted(scheduler="none", learning_rate=0.01)[1]
    assert timeless(plain[:2]) == timeless(epochs[:2])


def test_gradients_that_are_not_finite_go_back_too() -> None:
    told = Notes()
    root = broken(lambda step, _: step == 9, lambda loss: torch.sqrt(loss * 0) + loss.detach())
    fitted(task=root, progress=told)
    (note,) = told.notes
    assert note.startswith("Epoch 2: a gradient that is not finite; back to epoch 1")


def test_nan_that_stays_is_an_error() -> None:
    told = Notes()
    always = broken(lambda step, _: step > 20, lambda loss: loss * float("nan"))
    with pytest.raises(
        InputError, match=r"epoch 3, got a loss that is NaN.*after going back 3 times"
    ):
        fitted(task=always, progress=told)
    assert len(told.notes) == 3


def test_memory_that_runs_out_halves_the_batch() -> None:
    told = Notes()

    def make() -> Task:
        task = toy()
        plain = task.loss

        def loss_of(rows: np.ndarray, device: torch.device) -> torch.Tensor:
            if len(rows) > 4:
                raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")
            return plain(rows, device)

        task.loss = loss_of
        return task

    weights, epochs = fitted(task=make, progress=told, batch_size=16)
    assert {epoch.batch_size for epoch in epochs} == {4}
    assert told.notes == [
        f"Epoch 1: out of memory; batches of {size} from here on" for size in (8, 4)
    ]
    assert same(weights, fitted(batch_size=4)[0])


def test_memory_that_is_never_enough_is_an_error_and_others_are_not_caught() -> None:
    def failing(error: Exception) -> Callable[[], Task]:
        def make() -> Task:
            task = toy()

            def loss_of(*_: Any) -> torch.Tensor:
                raise error

            task.loss = loss_of
            return task

        return make

    with pytest.raises(InputError, match="Expected memory for a batch of one trace"):
        fitted(task=failing(torch.OutOfMemoryError("no memory")))
    with pytest.raises(RuntimeError, match="shapes"):
        fitted(task=failing(RuntimeError("shapes do not fit")))


def test_a_training_that_learns_nothing_is_diagnosed() -> None:
    told = Notes()

    _, epochs = fitted(task=lambda: toy(signal=0.0, count=2000), progress=told, epochs=3)
    best = max(epoch.validation_auroc for epoch in epochs)
    assert best < 0.55
    (note,) = told.notes
    assert note.startswith(f"It did not learn: validation AUROC at best {best:.3f} in 3 epochs;")
    assert "50% of the training part hallucinated" in note


def row(**changes: Any) -> Epoch:
    plain = Epoch(1, 0.7, 0.5, 0.5, 1e-3, 1.0, 64, 1.0)
    return replace(plain, **changes)


@pytest.mark.parametrize(
    ("last", "share", "said"),
    [
        (row(), 0.5, "The loss does not move"),
        (row(loss=0.1), 0.5, "learned by heart"),
        (row(gradient=1e4), 0.5, "lower `learning_rate`"),
        (row(gradient=1e-6), 0.5, "Gradients vanish"),
        (row(), 0.01, "One class is rare"),
    ],
)
def test_diagnoses(last: Epoch, share: float, said: str) -> None:
    first = row(gradient=last.gradient)
    assert said in (history.diagnose([first, last], share) or "")
    assert history.diagnose([first, replace(last, validation_auroc=0.6)], share) is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("epochs", 0), ("batch_size", 1.5), ("patience", True),
        ("learning_rate", 0.0), ("max_grad_norm", float("nan")), ("weight_decay", -1.0),
        ("scheduler", "step"), ("device", "tpu"), ("precision", "float16"),
    ],
)  # fmt: skip
def test_options_that_mean_nothing_are_named(name: str, value: Any) -> None:
    with pytest.raises(InputError, match=f"Expected `{name}` of `toy`"):
        parse(TrainingOptions, {name: value}, "toy")
