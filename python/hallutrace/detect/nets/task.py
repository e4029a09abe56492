"""What a training loop is given to train."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as functional
from numpy.typing import NDArray
from torch import nn

from hallutrace.detect.metrics import auroc

Rows = NDArray[np.int64]


class NotFiniteError(ArithmeticError):
    """A loss, gradient or score is NaN or infinite; the training loop catches it."""


def finite(value: float | torch.Tensor, what: str) -> float:
    """A number as it is.

    Raises:
        NotFiniteError: naming it, if it is NaN or infinite.
    """
    if not math.isfinite(value):
        raise NotFiniteError(what)
    return float(value)


@dataclass
class Task:
    """A model with its data, as functions of row numbers of the training part.

    Attributes:
        model: its parameters are trained; it is on the device that the functions are given.
        hallucinated: share of hallucinated answers in the training part, for a diagnosis.
        order: the rows of one epoch in the order that a generator draws, int64.
        loss: mean loss of some rows on a device, a scalar tensor.
        validate: AUROC on the validation part, and the value that early stopping maximises, of a
            batch size and a device.
    """

    model: nn.Module
    hallucinated: float
    order: Callable[[np.random.Generator], Rows]
    loss: Callable[[Rows, torch.device], torch.Tensor]
    validate: Callable[[int, torch.device], tuple[float, float]]


def classification(
    model: nn.Module,
    train_labels: NDArray[np.int8],
    validation_labels: NDArray[np.int8],
    loss: Callable[[Rows, torch.Tensor, torch.device], torch.Tensor],
    scores: Callable[[int, torch.device], NDArray[np.float64]],
    order: Callable[[np.random.Generator], Rows] | None = None,
) -> Task:
    """A task that learns labels and stops by the AUROC on the validation part.

    Args:
        model: the network.
        train_labels: int8 [training rows].
        validation_labels: int8 [validation rows].
        loss: mean loss of some training rows, of the rows, their labels as float32, and a device.
        scores: scores of the validation part, float64, of a batch size and a device.
        order: of an epoch; a random permutation of all rows unless given.
    """

    def loss_of_rows(rows: Rows, device: torch.device) -> torch.Tensor:
        labels = torch.from_numpy(train_labels[rows].astype(np.float32)).to(device)
        return loss(rows, labels, device)

    def validate(batch_size: int, device: torch.device) -> tuple[float, float]:
        value = finite_auroc(scores(batch_size, device), validation_labels)
        return value, value

    def permutation(rng: np.random.Generator) -> Rows:
        return rng.permutation(len(train_labels))

    share = float(train_labels.mean())
    return Task(model, share, order or permutation, loss_of_rows, validate)


def finite_auroc(scores: NDArray[np.float64], labels: NDArray[np.int8]) -> float:
    """AUROC of the scores of a network in training.

    Raises:
        NotFiniteError: a score is NaN or infinite.
    """
    if not np.isfinite(scores).all():
        raise NotFiniteError("score")
    return auroc(scores, labels)


def cross_entropy(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Binary cross entropy, mean over a batch, in float32."""
    return functional.binary_cross_entropy_with_logits(logits.float(), labels)
