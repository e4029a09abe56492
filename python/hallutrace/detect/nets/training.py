"""The training loop of all neural detectors.

1. An epoch goes over the training part in an order drawn from (seed, epoch), then validates.
2. After each epoch a snapshot is taken of everything that the next one depends on: weights, best
   weights, AdamW's state, states of the random generators. With a workspace it is written to
   ``checkpoints/last.safetensors`` with the :class:`TrainingState`: a killed training that is
   started again ends as an uninterrupted one would (same machine, same number of threads).
3. After a loss, gradient or score that is not finite, the last snapshot is restored and the
   learning rate divided by 10, at most 3 times. After memory ran out, the last snapshot is restored
   and the batch size halved, down to 1.
4. The training stops after ``patience`` epochs without a better validation and takes the best
   weights.
"""

from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import nn

from hallutrace.canonical_json import canonical
from hallutrace.detect.base import Progress, Silent
from hallutrace.detect.nets import checkpoints, history
from hallutrace.detect.nets.checkpoints import with_prefix, without_prefix
from hallutrace.detect.nets.history import Epoch
from hallutrace.detect.nets.task import NotFiniteError, Rows, Task
from hallutrace.detect.nets.training_options import TrainingOptions
from hallutrace.errors import InputError
from hallutrace.model.free_memory import is_out_of_memory, release_cached_memory

RETRIES = 3
"""How often a training restores a snapshot because of numbers that are not finite."""

_MIN_IMPROVEMENT = 1e-6  # of the monitored value, so that rounding does not count


@dataclass
class TrainingState:
    """What a training has reached; JSON-able by ``asdict``.

    Attributes:
        batch_size: in use; halved after memory ran out.
        best_epoch: epoch of the largest monitored value; 0 before the first.
        rate_halvings: how often the ``plateau`` scheduler halved the learning rate.
        rate_scale: of the learning rate; a tenth for each retry.
        retries: how often a snapshot was restored because of numbers that are not finite.
        epochs: the history.
        notes: messages to the user.
    """

    batch_size: int
    best_epoch: int = 0
    rate_halvings: int = 0
    rate_scale: float = 1.0
    retries: int = 0
    epochs: list[Epoch] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def epochs_without_improvement(self) -> int:
        """Epochs since the best one."""
        return len(self.epochs) - self.best_epoch

    @property
    def best_value(self) -> float:
        """The largest monitored value; minus infinity before the first epoch."""
        return self.epochs[self.best_epoch - 1].monitored if self.best_epoch else -math.inf


def train(
    task: Task,
    options: TrainingOptions,
    *,
    seed: int = 0,
    identity: dict[str, Any] | None = None,
    progress: Progress | None = None,
    workspace: Path | None = None,
) -> list[Epoch]:
    """Trains the model of a task; it is left on the CPU with its best weights.

    Args:
        task: its model was made, and this is called, inside
            :func:`~hallutrace.model.seeding.seeded`.
        options: how it is trained.
        seed: of the order of batches.
        identity: of the data and the model, JSON-able; a checkpoint must have an equal one.
        progress: told of epochs and notes.
        workspace: folder for ``checkpoints/`` (``last`` and ``best``), ``history.json`` and
            ``history.csv``. A training in it that was killed goes on, one that ended is read.

    Returns:
        The epochs.

    Raises:
        InputError: numbers that are not finite after 3 retries, too little memory for a batch of
            one trace, or a workspace of another training.
        DamagedError: a damaged checkpoint.
        StorageError: the workspace cannot be written.
    """
    return _Trainer(task, options, seed, identity or {}, progress or Silent(), workspace).run()


class _Trainer:
    """One training; see the module."""

    def __init__(
        self,
        task: Task,
        options: TrainingOptions,
        seed: int,
        identity: dict[str, Any],
        progress: Progress,
        workspace: Path | None,
    ) -> None:
        self.task, self.options, self.progress = task, options, progress
        self.seed, self.workspace = seed, workspace
        # As text, so that tuples and lists are equal.
        whole = {"training": options.to_json(), "seed": seed, **identity}
        self.identity = canonical(whole).decode()
        self.device = options.torch_device()
        self.model = task.model.to(self.device)
        self.parameters = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(
            self.parameters, options.learning_rate, weight_decay=options.weight_decay
        )
        self.autocast = torch.autocast(self.device.type, torch.bfloat16, enabled=options.is_mixed())
        self.state = TrainingState(options.batch_size)
        self.best_weights: checkpoints.Tensors = {}

    def run(self) -> list[Epoch]:
        """Trains to the end."""
        try:
            self._resume()
            while not self._is_done():
                try:
                    epoch = self._train_epoch()
                except NotFiniteError as error:
                    self._lower_learning_rate(str(error))
                except (RuntimeError, MemoryError) as error:
                    if not is_out_of_memory(error):
                        raise
                    self._halve_batch()
                else:
                    self._end_epoch(epoch)
        finally:
            self.model.to("cpu")
        self.model.load_state_dict(self.best_weights)
        return self.state.epochs

    def _is_done(self) -> bool:
        state, options = self.state, self.options
        return (
            len(state.epochs) >= options.epochs
            or state.epochs_without_improvement >= options.patience
        )

    # One epoch ------------------------------------------------------------------------------------

    def _train_epoch(self) -> Epoch:
        begin, state, number = time.perf_counter(), self.state, len(self.state.epochs)
        rate = self.options.learning_rate * state.rate_scale
        rate *= self.options.rate_factor(number, state.rate_halvings)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        order = self.task.order(np.random.default_rng([self.seed, number]))
        total, norms = 0.0, []
        self.model.train()
        for first in range(0, len(order), state.batch_size):
            rows = order[first : first + state.batch_size]
            loss, norm = self._step(rows)
            total += loss * len(rows)
            norms.append(norm)
        self.model.eval()
        with torch.no_grad(), self.autocast:
            auroc, monitored = self.task.validate(state.batch_size, self.device)
        if not math.isfinite(monitored):
            raise NotFiniteError("validation")
        return Epoch(
            epoch=number + 1,
            loss=total / max(len(order), 1),
            validation_auroc=auroc,
            monitored=monitored,
            learning_rate=rate,
            gradient=median(norms),
            batch_size=state.batch_size,
            seconds=time.perf_counter() - begin,
        )

    def _step(self, rows: Rows) -> tuple[float, float]:
        """Trains on one batch; its loss, and the norm of its gradient."""
        self.optimizer.zero_grad(set_to_none=True)
        with self.autocast:
            loss = self.task.loss(rows, self.device)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise NotFiniteError("loss")
        loss.backward()  # type: ignore[no-untyped-call]
        norm = float(nn.utils.clip_grad_norm_(self.parameters, self.options.max_grad_norm))
        if not math.isfinite(norm):
            raise NotFiniteError("gradient")
        self.optimizer.step()
        return value, norm

    def _end_epoch(self, epoch: Epoch) -> None:
        state = self.state
        is_best = epoch.monitored > state.best_value + _MIN_IMPROVEMENT
        state.epochs.append(epoch)
        if is_best:
            state.best_epoch = epoch.epoch
            self.best_weights = with_prefix("", self.model.state_dict())
        elif state.epochs_without_improvement % max(1, self.options.patience // 3) == 0:
            state.rate_halvings += 1
        if self._is_done():
            diagnosis = history.diagnose(state.epochs, self.task.hallucinated)
            if diagnosis is not None:
                self._note(diagnosis)
        self.snapshot = self._take_snapshot()
        if self.workspace is not None:
            self._write(self.workspace, epoch, is_best)
        self.progress.epoch(epoch.epoch, epoch.loss, epoch.validation_auroc, epoch.seconds)

    # After a fault --------------------------------------------------------------------------------

    def _lower_learning_rate(self, what: str) -> None:
        """Goes back to the last snapshot after numbers that are not finite."""
        state, number = self.state, len(self.state.epochs)
        if state.retries == RETRIES:
            raise InputError(
                f"Expected finite numbers in epoch {number + 1}, got a {what} that is NaN or "
                f"infinite, also after going back {RETRIES} times to a tenth of the learning rate "
                f"(now {self.options.learning_rate * state.rate_scale:.1g}) - look for features "
                "that are not finite, or lower `learning_rate`"
            )
        self._restore(self.snapshot)
        state.rate_scale, state.retries = state.rate_scale / 10, state.retries + 1
        self._note(
            f"Epoch {number + 1}: a {what} that is not finite; back to epoch {number} with a tenth "
            f"of the learning rate ({state.retries} of {RETRIES})"
        )

    def _halve_batch(self) -> None:
        """Goes back to the last snapshot after memory ran out."""
        state = self.state
        if state.batch_size == 1:
            raise InputError(
                "Expected memory for a batch of one trace, got too little - take fewer layers, a "
                "smaller network (`hidden_dim`), or `max_nodes`"
            )
        self.optimizer.zero_grad(set_to_none=True)
        release_cached_memory()
        self._restore(self.snapshot)
        state.batch_size //= 2
        self._note(
            f"Epoch {len(state.epochs) + 1}: out of memory; batches of {state.batch_size} from "
            "here on"
        )

    def _note(self, text: str) -> None:
        self.state.notes.append(text)
        self.progress.note(text)

    # Snapshots and files --------------------------------------------------------------------------

    def _take_snapshot(self) -> checkpoints.Tensors:
        """Copies on the CPU of all tensors that the next epoch depends on."""
        tensors = with_prefix("model.", self.model.state_dict())
        tensors |= with_prefix("best.", self.best_weights)
        for number, moments in self.optimizer.state_dict()["state"].items():
            tensors |= with_prefix(f"optimizer.{number}.", moments)
        tensors["rng.cpu"] = torch.get_rng_state()
        if self.device.type == "cuda":
            tensors["rng.cuda"] = torch.cuda.get_rng_state(self.device)
        return tensors

    def _restore(self, tensors: checkpoints.Tensors) -> None:
        self.model.load_state_dict(without_prefix("model.", tensors))
        self.best_weights = without_prefix("best.", tensors)
        moments: dict[int, checkpoints.Tensors] = {}
        for name, tensor in without_prefix("optimizer.", tensors).items():
            number, _, key = name.partition(".")
            moments.setdefault(int(number), {})[key] = tensor.clone()  # AdamW works in place
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": moments})
        torch.set_rng_state(tensors["rng.cpu"])
        if self.device.type == "cuda":
            torch.cuda.set_rng_state(tensors["rng.cuda"], self.device)

    def _resume(self) -> None:
        """Goes on from the last checkpoint of the workspace, if there is one."""
        path = None if self.workspace is None else self.workspace / "checkpoints" / checkpoints.LAST
        if path is None or not path.is_file():
            self.snapshot = self._take_snapshot()
            return
        self.snapshot, content = checkpoints.read(path)
        if content["identity"] != self.identity:
            raise InputError(
                f"Expected checkpoints of this training in {path.parent}, got those of another "
                "(other traces, labels, options or seed) - remove them, or choose another folder"
            )
        epochs = [Epoch(**epoch) for epoch in content["state"]["epochs"]]
        self.state = TrainingState(**{**content["state"], "epochs": epochs})
        self._restore(self.snapshot)
        self.progress.note(f"Goes on after epoch {len(epochs)}, from {path}")

    def _write(self, workspace: Path, epoch: Epoch, is_best: bool) -> None:
        """Writes history and checkpoints; the last checkpoint comes last."""
        folder, content = workspace / "checkpoints", {"identity": self.identity}
        history.write(workspace, self.state.epochs, self.state.notes)
        if is_best:
            best = {**content, "epoch": asdict(epoch)}
            checkpoints.write(folder / checkpoints.BEST, self.best_weights, best)
        last = {**content, "state": asdict(self.state)}
        checkpoints.write(folder / checkpoints.LAST, self.snapshot, last)
