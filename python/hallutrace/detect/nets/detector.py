"""What detectors that are neural networks share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as functional
from numpy.typing import NDArray
from torch import nn

from hallutrace.canonical_json import digest
from hallutrace.detect.base import Detector, Progress
from hallutrace.detect.examples import Examples
from hallutrace.detect.metrics import auroc
from hallutrace.detect.nets.history import Epoch
from hallutrace.detect.nets.schedule import TRAINING, Schedule, complaint
from hallutrace.detect.nets.task import NotFiniteError, Task
from hallutrace.detect.nets.training import train as run_training
from hallutrace.errors import InputError

Rows = NDArray[np.int64]


class NetDetector(Detector):
    """A neural network.

    Options that all of them have, see :class:`~hallutrace.detect.nets.schedule.Schedule`:
    ``epochs``, ``batch_size``, ``learning_rate``, ``weight_decay``, ``patience``, ``scheduler``,
    ``clip``, ``keep``, ``device``, ``precision``; and ``dropout``.

    ``fit(train, validation, progress=..., workspace=...)`` stops early on the validation part, and
    with a workspace writes checkpoints and the history there and goes on after a kill; see
    :func:`~hallutrace.detect.nets.training.train`. A fitted detector scores on the CPU.

    Attributes:
        history: of the last fit, by the name of each training in it.
    """

    seeded: ClassVar[bool] = True
    defaults: ClassVar[Mapping[str, Any]] = {**TRAINING, "dropout": 0.1}
    _net: nn.Module | None = None

    def __init__(self, *, seed: int = 0, **options: Any) -> None:
        super().__init__(seed=seed, **options)
        self.history: dict[str, list[Epoch]] = {}

    def check_options(self) -> None:
        """Refuses options of a training that mean nothing."""
        found = complaint(self.options)
        if found is not None:
            self.require_option(found[0], False, found[1])
        dropout = self.options["dropout"]
        good = isinstance(dropout, (int, float)) and 0 <= dropout < 1
        self.require_option("dropout", good, "a number from 0, below 1")

    def require_whole(self, *names: str) -> None:
        """Refuses options that are not whole numbers from 1."""
        for name in names:
            value = self.options[name]
            self.require_option(name, type(value) is int and value >= 1, "an integer >= 1")

    def schedule(self) -> Schedule:
        """How it is trained."""
        return Schedule(**{name: self.options[name] for name in TRAINING}, seed=self.seed)

    def train(
        self,
        task: Task,
        train: Examples,
        validation: Examples,
        part: str,
        progress: Progress | None,
        workspace: Path | None,
    ) -> list[Epoch]:
        """Trains one network of the detector; the history."""
        identity = self.identity(train, validation, part)
        return run_training(
            task, self.schedule(), identity=identity, progress=progress, workspace=workspace
        )

    def identity(self, train: Examples, validation: Examples, part: str) -> dict[str, Any]:
        """What checkpoints of a training must agree with."""
        data = [[some.keys, some.labels.tolist()] for some in (train, validation)]
        return {
            "detector": self.name,
            "part": part,
            "options": self.options,
            "seed": self.seed,
            "run": train.store.manifest.fingerprint,
            "data": digest(data).hex(),
        }

    @property
    def net(self) -> Any:
        """The network that was fitted.

        Raises:
            InputError: nothing yet.
        """
        if self._net is None:
            raise InputError(f"Expected a fitted `{self.name}`, got a new one - call fit first")
        return self._net


@dataclass
class Supervised:
    """A network that learns labels from batches.

    Attributes:
        model: the network.
        labels: int8, of the training part.
        held: int8, of the validation part.
        loss_of: mean loss of some training examples, of their numbers, float32 labels and a device.
        scores_of: scores of the validation part, of a batch size and a device.
        shuffle: order of an epoch; any order unless given.
    """

    model: nn.Module
    labels: NDArray[np.int8]
    held: NDArray[np.int8]
    loss_of: Callable[[Rows, torch.Tensor, torch.device], torch.Tensor]
    scores_of: Callable[[int, torch.device], NDArray[np.float64]]
    shuffle: Callable[[np.random.Generator], Rows] | None = None

    @property
    def share(self) -> float:
        """Of hallucinated answers among them."""
        return float(self.labels.mean())

    def order(self, dice: np.random.Generator) -> Rows:
        """All of them, in random order."""
        return dice.permutation(len(self.labels)) if self.shuffle is None else self.shuffle(dice)

    def loss(self, rows: Rows, device: torch.device) -> torch.Tensor:
        """Mean loss of some."""
        truth = torch.from_numpy(self.labels[rows].astype(np.float32)).to(device)
        return self.loss_of(rows, truth, device)

    def validate(self, batch_size: int, device: torch.device) -> tuple[float, float]:
        """AUROC on the validation part, which early stopping goes by."""
        reached = finite_auroc(self.scores_of(batch_size, device), self.held)
        return reached, reached


def finite_auroc(scores: NDArray[np.float64], labels: NDArray[np.int8]) -> float:
    """AUROC of scores of a training, which goes back where they are not finite."""
    if not np.isfinite(scores).all():
        raise NotFiniteError("score")
    return auroc(scores, labels)


def cross_entropy(logits: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Binary cross entropy, mean over a batch, in float32."""
    return functional.binary_cross_entropy_with_logits(logits.float(), truth)


def arrays_of(net: nn.Module, prefix: str) -> dict[str, NDArray[Any]]:
    """Weights of a network by name."""
    return {
        f"{prefix}.{name}": tensor.detach().cpu().numpy()
        for name, tensor in net.state_dict().items()
    }


def take_back(net: nn.Module, arrays: Mapping[str, NDArray[Any]], prefix: str) -> None:
    """Gives a network its weights.

    Raises:
        ValueError: weights of another network.
    """
    begin = f"{prefix}."
    tensors = {
        name.removeprefix(begin): torch.from_numpy(np.array(array))
        for name, array in arrays.items()
        if name.startswith(begin)
    }
    try:
        net.load_state_dict(tensors)
    except RuntimeError as error:
        raise ValueError(str(error).splitlines()[0]) from None
    net.eval()


def check_both_classes(examples: Examples, part: str) -> None:
    """Refuses a part with one class only, or none.

    Raises:
        InputError: so.
    """
    hallucinated = int(examples.labels.sum())
    if hallucinated in (0, len(examples)):
        raise InputError(
            f"Expected hallucinated and right answers in the {part} part, got {hallucinated} "
            f"hallucinated and {len(examples) - hallucinated} right - take more traces"
        )
