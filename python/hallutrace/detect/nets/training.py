"""The training loop of all neural detectors.

1. An epoch goes over the training part in an order drawn from (seed, epoch), then validates.
2. After it everything that the next one depends on is a *moment*: weights, best weights, AdamW's
   state, states of random generators, counters. The moment is kept in memory and, with a folder, is
   written as ``checkpoints/last.safetensors``; a training that was killed goes on from there and
   ends as one never interrupted would (same machine, same number of threads).
3. A loss, gradient or score that is not finite goes back to the last moment with a tenth of the
   learning rate, at most 3 times. Memory that runs out goes back with half the batch, down to 1.
4. It ends after ``patience`` epochs without a better validation, with the best weights.
"""

from __future__ import annotations

import math
import time
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from hallutrace.canonical_json import canonical
from hallutrace.detect.base import Progress, Silent
from hallutrace.detect.nets import checkpoints, history
from hallutrace.detect.nets.history import Epoch
from hallutrace.detect.nets.moment import Held, Moment, copied, named
from hallutrace.detect.nets.schedule import Schedule
from hallutrace.detect.nets.task import NotFiniteError, Task
from hallutrace.errors import InputError
from hallutrace.model.free_memory import is_out_of_memory

RETRIES = 3
"""How often a training goes back for numbers that are not finite."""

_BETTER = 1e-6  # of what is monitored, so that rounding is no progress


def train(
    task: Task,
    schedule: Schedule,
    *,
    identity: dict[str, Any] | None = None,
    progress: Progress | None = None,
    workspace: Path | None = None,
) -> list[Epoch]:
    """Trains a task's model, which is left with its best weights, on the CPU.

    Args:
        task: what is trained; its model was made, and this is called, inside
            :func:`~hallutrace.detect.nets.task.seeded`.
        schedule: how.
        identity: of the data and the model, JSON-able: what a checkpoint must agree with.
        progress: told of epochs, and of what happens beside.
        workspace: folder for ``checkpoints/``, ``history.json``, ``history.csv`` and
            ``tensorboard/``. A training in it that was killed goes on; one that has ended is read.

    Returns:
        The history.

    Raises:
        InputError: numbers that are not finite after going back 3 times, memory that runs out with
            one trace a batch, or a folder of another training.
        DamagedError: a checkpoint that is not what was written.
    """
    trainer = _Trainer(task, schedule, progress or Silent(), workspace)
    trainer.begin(identity or {})
    try:
        while not trainer.now.ended:
            trainer.advance()
    finally:
        trainer.close()
    return trainer.now.epochs


class _Trainer:
    """One training; see the module."""

    def __init__(
        self, task: Task, schedule: Schedule, progress: Progress, workspace: Path | None
    ) -> None:
        self.task, self.schedule, self.progress = task, schedule, progress
        self.workspace = workspace
        self.folder = None if workspace is None else workspace / "checkpoints"
        self.device = schedule.place()
        self.mixed = schedule.is_mixed(self.device)
        task.model.to(self.device)
        self.parameters = [p for p in task.model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(
            self.parameters, schedule.learning_rate, weight_decay=schedule.weight_decay
        )
        self.now = Moment(schedule.batch_size)
        self.best: checkpoints.Tensors = {}
        self.board: Any = None

    # Beginning and end --------------------------------------------------------------------------

    def begin(self, identity: dict[str, Any]) -> None:
        """Goes on from the last checkpoint, or takes the first moment."""
        # Equal JSON, so that tuples and lists are the same.
        told = {"schedule": asdict(self.schedule), **identity}
        self.identity = canonical(told).decode()
        last = None if self.folder is None else self.folder / checkpoints.LAST
        if last is not None and last.is_file():
            tensors, facts = checkpoints.read(last)
            if facts["identity"] != self.identity:
                raise InputError(
                    f"Expected checkpoints of this training in {self.folder}, got those of another "
                    "(other traces, labels, options or seed) - remove them, or choose another place"
                )
            self.moment = (tensors, facts["moment"])
            self._restore()
            self.progress.note(f"Goes on after epoch {self.now.epoch}, from {last}")
        else:
            self._remember()
        if self.workspace is not None and not self.now.ended:
            self.board = history.board(self.workspace, self.now.epoch + 1)
        if self.now.ended:
            self._finish()

    def close(self) -> None:
        """Gives back what is open."""
        if self.board is not None:
            self.board.close()
        self.task.model.to("cpu")

    def _finish(self) -> None:
        self.task.model.load_state_dict(self.best)

    # One epoch ----------------------------------------------------------------------------------

    def advance(self) -> None:
        """One epoch, or one step back."""
        try:
            epoch = self._epoch()
        except NotFiniteError as error:
            self._go_back(str(error))
            return
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            self._halve()
            return
        self._judge(epoch)
        self._remember()
        self._write()
        self.progress.epoch(epoch.epoch, epoch.loss, epoch.validation_auroc, epoch.seconds)
        if self.now.ended:
            self._finish()

    def _epoch(self) -> Epoch:
        begun, now = time.perf_counter(), self.now
        rate = self.schedule.learning_rate * now.scale
        rate *= self.schedule.share(now.epoch, now.plateaus)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        order = self.task.order(np.random.default_rng([self.schedule.seed, now.epoch]))
        total, norms = 0.0, []
        self.task.model.train()
        for begin in range(0, len(order), now.batch_size):
            rows = order[begin : begin + now.batch_size]
            loss, norm = self._step(rows)
            total += loss * len(rows)
            norms.append(norm)
        self.task.model.eval()
        with torch.no_grad(), self._autocast():
            auroc, monitored = self.task.validate(now.batch_size, self.device)
        if not math.isfinite(monitored):
            raise NotFiniteError("validation")
        return Epoch(
            epoch=now.epoch + 1,
            loss=total / max(len(order), 1),
            validation_auroc=auroc,
            monitored=monitored,
            learning_rate=rate,
            gradient=median(norms),
            batch_size=now.batch_size,
            seconds=time.perf_counter() - begun,
        )

    def _step(self, rows: NDArray[np.int64]) -> tuple[float, float]:
        """Learns from one batch; its loss, and the norm of its gradient."""
        self.optimizer.zero_grad(set_to_none=True)
        with self._autocast():
            loss = self.task.loss(rows, self.device)
        told = float(loss.detach())
        if not math.isfinite(told):
            raise NotFiniteError("loss")
        loss.backward()  # type: ignore[no-untyped-call]
        norm = float(nn.utils.clip_grad_norm_(self.parameters, self.schedule.clip))
        if not math.isfinite(norm):
            raise NotFiniteError("gradient")
        self.optimizer.step()
        return told, norm

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.mixed)

    def _judge(self, epoch: Epoch) -> None:
        """Counts an epoch, keeps weights that are the best, and decides whether it ends."""
        now = self.now
        now.epoch, now.epochs = epoch.epoch, [*now.epochs, epoch]
        if epoch.monitored > now.best + _BETTER:
            now.best, now.best_epoch, now.stale = epoch.monitored, epoch.epoch, 0
            self.best = copied(self.task.model.state_dict())
        else:
            now.stale += 1
            now.plateaus += self.schedule.is_plateau(now.stale)
        now.ended = now.epoch >= self.schedule.epochs or now.stale >= self.schedule.patience
        if now.ended:
            found = history.diagnose(now.epochs, self.task.share)
            if found is not None:
                self._note(found)

    # Steps back ---------------------------------------------------------------------------------

    def _go_back(self, what: str) -> None:
        """After numbers that are not finite."""
        scale, retries = self.now.scale / 10, self.now.retries + 1
        if retries > RETRIES:
            raise InputError(
                f"Expected finite numbers in epoch {self.now.epoch + 1}, got a {what} that is NaN "
                f"or infinite, also after going back {RETRIES} times to a tenth of the learning "
                f"rate (now {self.schedule.learning_rate * self.now.scale:.1g}) - look for "
                "features that are not finite, or lower `learning_rate`"
            )
        notes = self.now.notes
        self._restore()
        self.now.scale, self.now.retries, self.now.notes = scale, retries, notes
        self._note(
            f"Epoch {self.now.epoch + 1}: a {what} that is not finite; back to epoch "
            f"{self.now.epoch} with a tenth of the learning rate ({retries} of {RETRIES})"
        )

    def _halve(self) -> None:
        """After memory has run out."""
        size, notes = self.now.batch_size // 2, self.now.notes
        if size < 1:
            raise InputError(
                "Expected memory for a batch of one trace, got too little - take fewer layers, a "
                "smaller network (`width`), or `max_nodes`"
            )
        self.optimizer.zero_grad(set_to_none=True)
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        scale, retries = self.now.scale, self.now.retries
        self._restore()
        self.now.batch_size, self.now.notes = size, notes
        self.now.scale, self.now.retries = scale, retries
        self._note(f"Epoch {self.now.epoch + 1}: out of memory; batches of {size} from here on")

    def _note(self, text: str) -> None:
        self.now.notes = [*self.now.notes, text]
        self.progress.note(text)

    # Moments ------------------------------------------------------------------------------------

    def _remember(self) -> None:
        """Takes a moment."""
        held = Held(self.task.model, self.optimizer, self.parameters, self.device)
        self.moment = (held.tensors(self.best), self.now.facts())

    def _restore(self) -> None:
        """Goes back to the last moment."""
        tensors, facts = self.moment
        self.now = Moment.of(facts)
        held = Held(self.task.model, self.optimizer, self.parameters, self.device)
        self.best = held.take_back(tensors)

    def _write(self) -> None:
        """The moment and the history, on the disk; the last checkpoint comes last."""
        if self.folder is None or self.workspace is None:
            return
        tensors, facts = self.moment
        values = {epoch.epoch: epoch.monitored for epoch in self.now.epochs}
        weights, epoch = named(tensors, "model."), self.now.epochs[-1]
        told = {"identity": self.identity, "epoch": asdict(epoch)}
        if epoch.epoch in checkpoints.best_epochs(values, self.schedule.keep):
            checkpoints.write(checkpoints.path_of(self.folder, epoch.epoch), weights, told)
        if epoch.epoch == self.now.best_epoch:
            checkpoints.write(self.folder / checkpoints.BEST, weights, told)
        history.write(self.workspace, self.now.epochs, self.now.notes)
        checkpoints.write(
            self.folder / checkpoints.LAST, tensors, {"identity": self.identity, "moment": facts}
        )
        checkpoints.keep_best(self.folder, values, self.schedule.keep)
        if self.board is not None:
            history.tell_board(self.board, epoch)
