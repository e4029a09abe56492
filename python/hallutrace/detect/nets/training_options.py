"""Options of a training, as the neural detectors have them."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any

import torch

SCHEDULERS = ("cosine", "plateau", "none")
DEVICES = ("auto", "cpu", "cuda")
PRECISIONS = ("auto", "float32", "bfloat16")

# The cosine schedule ends at this share of the learning rate.
_COSINE_FLOOR = 0.02


@dataclass(frozen=True)
class TrainingOptions:
    """How a network is trained.

    Attributes:
        epochs: the most epochs.
        batch_size: traces in a batch.
        learning_rate: of AdamW, at the beginning.
        weight_decay: of AdamW.
        patience: epochs without a better validation after which the training stops.
        scheduler: of the learning rate. ``cosine`` falls to 2% over all epochs; ``plateau`` halves
            after each third of the patience without a better validation; ``none`` is constant.
        max_grad_norm: gradients of a batch with a larger L2 norm are scaled down to it.
        device: ``auto`` takes a GPU if there is one.
        precision: ``auto`` is mixed precision with bfloat16 on a GPU that supports it, float32
            otherwise.
        seed: of weights, order of batches and dropout.
    """

    epochs: int = 40
    batch_size: int = 64
    learning_rate: float = 1e-3
    weight_decay: float = 1e-2
    patience: int = 8
    scheduler: str = "cosine"
    max_grad_norm: float = 1.0
    device: str = "auto"
    precision: str = "auto"
    seed: int = 0

    def torch_device(self) -> torch.device:
        """The device that ``device`` stands for."""
        if self.device == "auto":
            return torch.device("cuda" if torch.cuda.is_available() else "cpu")
        return torch.device(self.device)

    def is_mixed(self) -> bool:
        """Whether matrices are multiplied in bfloat16."""
        if self.torch_device().type != "cuda" or self.precision == "float32":
            return False
        return self.precision == "bfloat16" or torch.cuda.is_bf16_supported()

    def rate_factor(self, epoch: int, halvings: int) -> float:
        """Factor of the learning rate in an epoch, counted from 0, after so many halvings.

        >>> TrainingOptions(epochs=10).rate_factor(5, 0)
        0.51
        """
        if self.scheduler == "cosine":
            share = (1 + math.cos(math.pi * epoch / max(self.epochs, 1))) / 2
            return _COSINE_FLOOR + (1 - _COSINE_FLOOR) * share
        return float(0.5**halvings) if self.scheduler == "plateau" else 1.0


TRAINING_DEFAULTS: dict[str, Any] = {
    field.name: field.default for field in fields(TrainingOptions) if field.name != "seed"
}
"""Options of every training but the seed, and their defaults."""


def first_fault(options: dict[str, Any]) -> tuple[str, str] | None:
    """The first option with a value out of range, and the values that are allowed; or None."""
    for name in ("epochs", "batch_size", "patience"):
        if type(options[name]) is not int or options[name] < 1:
            return name, "an integer >= 1"
    for name in ("learning_rate", "max_grad_norm"):
        if not _is_number(options[name]) or options[name] <= 0:
            return name, "a number > 0"
    if not _is_number(options["weight_decay"]) or options["weight_decay"] < 0:
        return "weight_decay", "a number >= 0"
    for name, known in (("scheduler", SCHEDULERS), ("precision", PRECISIONS), ("device", DEVICES)):
        if options[name] not in known:
            return name, f"one of {', '.join(known)}"
    if options["device"] == "cuda" and not torch.cuda.is_available():
        return "device", "auto or cpu, for there is no GPU here"
    return None


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
