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
from hallutrace.detect.nets import checkpoints, history, history_log
from hallutrace.detect.nets.checkpoints import with_prefix, without_prefix
from hallutrace.detect.nets.history import Epoch
from hallutrace.detect.nets.task import NotFiniteError, Rows, Task, finite
from hallutrace.detect.nets.training_options import TrainingOptions
from hallutrace.errors import InputError
from hallutrace.model.free_memory import is_out_of_memory, release_cached_memory

RETRIES = 3
"""How often a training goes back because of numbers that are not finite."""

_MIN_IMPROVEMENT = 1e-6  # of the monitored value, so that rounding does not count


@dataclass
class TrainingState:
    """How far a training is.

    Attributes:
        batch_size: in use; halved after memory ran out.
        retries: how often it went back because of numbers that are not finite.
        epochs: the history.
        notes: messages to the user.
    """

    batch_size: int
    retries: int = 0
    epochs: list[Epoch] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def best_epoch(self) -> int:
        """Number of the epoch with the largest monitored value; 0 before the first."""
        best = 0
        for epoch in self.epochs:
            if not best or epoch.monitored > self.epochs[best - 1].monitored + _MIN_IMPROVEMENT:
                best = epoch.epoch
        return best

    @property
    def epochs_without_improvement(self) -> int:
        """Epochs since the best one."""
        return len(self.epochs) - self.best_epoch


class Training:
    """One training; :meth:`run` leaves the model on the CPU with its best weights.

    Args:
        task: its model was made, and :meth:`run` is called, inside
            :func:`~hallutrace.model.seeding.seeded`.
        options: how it is trained.
        seed: of the order of batches.
        identity: of the data and the model, JSON-able; a checkpoint must have an equal one.
        progress: told of epochs and notes.
        workspace: folder for ``checkpoints/`` (``last`` and ``best``), ``history.json``,
            ``history.csv`` and ``history.jsonl``, which can be followed. A training in it that was
            killed goes on, one that ended is read.
    """

    def __init__(
        self,
        task: Task,
        options: TrainingOptions,
        *,
        seed: int = 0,
        identity: dict[str, Any] | None = None,
        progress: Progress | None = None,
        workspace: Path | None = None,
    ) -> None:
        self.task, self.options, self.seed = task, options, seed
        self.progress, self.workspace = progress or Silent(), workspace
        # As text, so that tuples and lists are equal.
        whole = {"training": options.to_json(), "seed": seed, **(identity or {})}
        self.identity = canonical(whole).decode()
        self.device = options.torch_device()
        self.model = task.model.to(self.device)
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), options.learning_rate, weight_decay=options.weight_decay
        )
        self.autocast = torch.autocast(self.device.type, torch.bfloat16, options.is_mixed())
        self.state = TrainingState(options.batch_size)
        self.best_weights: checkpoints.Tensors = {}
        self.snapshot: checkpoints.Tensors = {}

    def run(self) -> list[Epoch]:
        """Trains to the end.

        Returns:
            The epochs.

        Raises:
            InputError: numbers that are not finite after 3 retries, too little memory for a batch
                of one trace, or a workspace of another training.
            DamagedError: a damaged checkpoint.
            StorageError: the workspace cannot be written.
        """
        try:
            self._resume()
            if self.workspace is not None:
                history_log.begin_log(self.workspace, self.state.epochs, self.state.notes)
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
        is_late = self.state.epochs_without_improvement >= self.options.patience
        return is_late or len(self.state.epochs) >= self.options.epochs

    def _train_epoch(self) -> Epoch:
        begin, number = time.perf_counter(), len(self.state.epochs)
        batch_size = self.state.batch_size
        rate = self.options.rate_of_epoch(number) * 0.1**self.state.retries
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        order = self.task.order(np.random.default_rng([self.seed, number]))
        self.model.train()
        batches = [order[at : at + batch_size] for at in range(0, len(order), batch_size)]
        losses, gradients = zip(*map(self._step, batches), strict=True)
        self.model.eval()
        with torch.no_grad(), self.autocast:
            auroc, monitored = self.task.validate(batch_size, self.device)
        return Epoch(
            epoch=number + 1,
            loss=sum(losses) / len(order),
            validation_auroc=auroc,
            monitored=finite(monitored, "validation"),
            learning_rate=rate,
            gradient=median(gradients),
            batch_size=batch_size,
            seconds=time.perf_counter() - begin,
        )

    def _step(self, rows: Rows) -> tuple[float, float]:
        """Trains on one batch; the sum of its losses, and the norm of its gradient."""
        self.optimizer.zero_grad(set_to_none=True)
        with self.autocast:
            loss = self.task.loss(rows, self.device)
        total = finite(loss.detach(), "loss") * len(rows)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.options.max_grad_norm)
        gradient = finite(norm, "gradient")
        self.optimizer.step()
        return total, gradient

    def _end_epoch(self, epoch: Epoch) -> None:
        self.state.epochs.append(epoch)
        is_best = self.state.epochs_without_improvement == 0
        if is_best:
            self.best_weights = with_prefix("", self.model.state_dict())
        diagnosis = history.diagnose(self.state.epochs, self.task.hallucinated)
        if self._is_done() and diagnosis is not None:
            self._note(diagnosis)
        self.snapshot = self._take_snapshot()
        if self.workspace is not None:
            history.write(self.workspace, self.state.epochs, self.state.notes)
            history_log.append_to_log(self.workspace, asdict(epoch))
            if is_best:
                self._write_checkpoint(checkpoints.BEST, self.best_weights, epoch=asdict(epoch))
            self._write_checkpoint(checkpoints.LAST, self.snapshot, state=asdict(self.state))
        self.progress.epoch(epoch.epoch, epoch.loss, epoch.validation_auroc, epoch.seconds)

    def _lower_learning_rate(self, what: str) -> None:
        """Goes back to the last snapshot after numbers that are not finite."""
        state, number = self.state, len(self.state.epochs)
        if state.retries == RETRIES:
            raise InputError(
                f"Expected finite numbers in epoch {number + 1}, got a {what} that is NaN or "
                f"infinite, also after going back {RETRIES} times to a tenth of the learning rate "
                "- look for features that are not finite, or lower `learning_rate`"
            )
        self._restore()
        state.retries += 1
        self._note(
            f"Epoch {number + 1}: a {what} that is not finite; back to epoch {number} with a tenth "
            f"of the learning rate ({state.retries} of {RETRIES})"
        )

    def _halve_batch(self) -> None:
        """Goes back to the last snapshot after memory ran out."""
        self.optimizer.zero_grad(set_to_none=True)
        release_cached_memory()
        state = self.state
        if state.batch_size == 1:
            raise InputError(
                "Expected memory for a batch of one trace, got too little - take fewer layers, a "
                "smaller network (`hidden_dim`), or `max_nodes`"
            )
        self._restore()
        state.batch_size //= 2
        number = len(state.epochs) + 1
        self._note(f"Epoch {number}: out of memory; batches of {state.batch_size} from here on")

    def _note(self, text: str) -> None:
        self.state.notes.append(text)
        if self.workspace is not None:
            history_log.append_to_log(self.workspace, {"note": text})
        self.progress.note(text)

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

    def _restore(self) -> None:
        """Takes everything from the last snapshot."""
        self.model.load_state_dict(without_prefix("model.", self.snapshot))
        self.best_weights = without_prefix("best.", self.snapshot)
        moments: dict[int, checkpoints.Tensors] = {}
        for name, tensor in without_prefix("optimizer.", self.snapshot).items():
            number, _, key = name.partition(".")
            moments.setdefault(int(number), {})[key] = tensor.clone()  # AdamW works in place
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": moments})
        torch.set_rng_state(self.snapshot["rng.cpu"])
        if self.device.type == "cuda":
            torch.cuda.set_rng_state(self.snapshot["rng.cuda"], self.device)

    def _resume(self) -> None:
        """Takes the first snapshot, or goes on from the last checkpoint."""
        path = self.workspace and self.workspace / "checkpoints" / checkpoints.LAST
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
        self._restore()
        self.progress.note(f"Goes on after epoch {len(epochs)}, from {path}")

    def _write_checkpoint(self, name: str, tensors: checkpoints.Tensors, **content: Any) -> None:
        assert self.workspace is not None
        path = self.workspace / "checkpoints" / name
        checkpoints.write(path, tensors, {"identity": self.identity, **content})
