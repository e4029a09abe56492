"""What detectors that are neural networks share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from hallutrace.canonical_json import digest
from hallutrace.detect.base import Detector, Progress
from hallutrace.detect.examples import Examples
from hallutrace.detect.nets.history import Epoch
from hallutrace.detect.nets.task import Task
from hallutrace.detect.nets.training import Training
from hallutrace.detect.nets.training_options import TrainingOptions
from hallutrace.errors import InputError


@dataclass(frozen=True)
class FitData:
    """What a network is fitted on, and who is told.

    Attributes:
        train: the training part.
        validation: the validation part.
        progress: told of epochs and notes.
        workspace: folder for checkpoints and history.
    """

    train: Examples
    validation: Examples
    progress: Progress | None = None
    workspace: Path | None = None

    def in_folder(self, name: str) -> FitData:
        """The same, with a folder of the workspace; for one of several networks."""
        return replace(self, workspace=None if self.workspace is None else self.workspace / name)


class NetDetector(Detector):
    """A neural network.

    ``fit(train, validation, progress=..., workspace=...)`` stops early on the validation part, and
    with a workspace writes checkpoints and the history there and goes on after a kill; see
    :class:`~hallutrace.detect.nets.training.Training`. A fitted detector scores on the CPU.

    Attributes:
        history: of the last fit, by the name of each training in it.
    """

    class Options(TrainingOptions, Detector.Options):
        """Of the training."""

    seeded = True
    options: Options
    _net: nn.Module | None = None

    def __init__(self, options: Options | None = None, *, seed: int = 0) -> None:
        super().__init__(options, seed=seed)
        self.history: dict[str, list[Epoch]] = {}

    def fit(
        self,
        train: Examples,
        validation: Examples,
        *,
        progress: Progress | None = None,
        workspace: Path | None = None,
    ) -> None:
        """Trains the networks; epochs are chosen on the validation part.

        Raises:
            InputError: a part has answers of one class only.
        """
        _check_both_classes(train, validation)
        self.fit_net(FitData(train, validation, progress, workspace))

    @abstractmethod
    def fit_net(self, data: FitData) -> None:
        """Makes the network and trains it, by :meth:`train`; both parts have both classes."""

    def train(self, task: Task, data: FitData, part: str) -> None:
        """Trains one network of the detector, and keeps the history.

        Args:
            task: the network and its data.
            data: of the fit.
            part: name of the network within the detector.
        """
        labels = [[some.keys, some.labels.tolist()] for some in (data.train, data.validation)]
        identity = {
            "detector": self.name,
            "part": part,
            "options": self.options.to_json(),
            "run": data.train.store.manifest.fingerprint,
            "data": digest(labels).hex(),
        }
        self.history[part] = Training(
            task,
            self.options,
            seed=self.seed,
            identity=identity,
            progress=data.progress,
            workspace=data.workspace,
        ).run()

    @property
    def net(self) -> Any:
        """The network that was fitted.

        Raises:
            InputError: nothing yet.
        """
        if self._net is None:
            raise InputError(f"Expected a fitted `{self.name}`, got a new one - call fit first")
        return self._net


def arrays_of(net: nn.Module, prefix: str) -> dict[str, NDArray[Any]]:
    """Weights of a network by name.

    Examples:
        >>> sorted(arrays_of(nn.Linear(2, 1), "net"))
        ['net.bias', 'net.weight']
    """
    return {
        f"{prefix}.{name}": tensor.detach().cpu().numpy()
        for name, tensor in net.state_dict().items()
    }


def load_arrays(net: nn.Module, arrays: Mapping[str, NDArray[Any]], prefix: str) -> None:
    """Gives a network the weights that :func:`arrays_of` gave.

    Raises:
        ValueError: the weights are those of another network.

    Examples:
        >>> net, other = nn.Linear(2, 1), nn.Linear(2, 1)
        >>> load_arrays(other, arrays_of(net, "net"), "net")
        >>> bool((net.weight == other.weight).all())
        True
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


def _check_both_classes(train: Examples, validation: Examples) -> None:
    """Refuses parts with answers of one class only.

    Raises:
        InputError: naming the part.
    """
    for name, part in (("training", train), ("validation", validation)):
        hallucinated = int(part.labels.sum())
        if hallucinated in (0, len(part)):
            raise InputError(
                f"Expected hallucinated and right answers in the {name} part, got {hallucinated} "
                f"hallucinated and {len(part) - hallucinated} right - take more traces"
            )
