"""What a training needs of what it trains, and what can go wrong in it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn


class Task(Protocol):
    """What is trained."""

    @property
    def model(self) -> nn.Module:
        """Its parameters are learnt; it is on the right device when asked for a loss."""

    @property
    def share(self) -> float:
        """Of hallucinated answers among the training part, for a diagnosis."""

    def order(self, dice: np.random.Generator) -> NDArray[np.int64]:
        """The training examples in the order of one epoch."""

    def loss(self, rows: NDArray[np.int64], device: torch.device) -> torch.Tensor:
        """Mean loss of some training examples."""

    def validate(self, batch_size: int, device: torch.device) -> tuple[float, float]:
        """AUROC on the validation part, and what to stop by, higher is better."""


class NotFiniteError(ArithmeticError):
    """A loss, a gradient or a score is NaN or infinite; within this package only."""


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draws torch's random numbers from a seed, and leaves its generators as they were."""
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        yield
