"""Options of a training, as the neural detectors have them."""

from __future__ import annotations

import math
from typing import Literal

import torch
from pydantic import Field, field_validator

from hallutrace.detect.options import Count, Options

# The cosine schedule ends at this share of the learning rate.
_COSINE_FLOOR = 0.02


class TrainingOptions(Options):
    """How a network is trained."""

    epochs: Count = Field(40, description="most epochs")
    batch_size: Count = Field(64, description="traces in a batch")
    learning_rate: float = Field(1e-3, gt=0, description="of AdamW, at the beginning")
    weight_decay: float = Field(1e-2, ge=0, description="of AdamW")
    patience: Count = Field(8, description="epochs without a better validation before it ends")
    scheduler: Literal["cosine", "none"] = Field(
        "cosine",
        description="of the learning rate: cosine lowers it to 2% over all epochs, none keeps it",
    )
    max_grad_norm: float = Field(1.0, gt=0, description="largest L2 norm of a batch's gradient")
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="where it is trained; auto takes a GPU where there is one"
    )
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="auto is mixed precision, bfloat16, on a GPU that has it"
    )
    dropout: float = Field(0.1, ge=0, lt=1, description="share of units left out in training")

    @field_validator("device")
    @classmethod
    def _device_is_there(cls, value: str) -> str:
        if value == "cuda" and not torch.cuda.is_available():
            raise ValueError("auto or cpu, for there is no GPU here")
        return value

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

    def rate_of_epoch(self, number: int) -> float:
        """The learning rate of an epoch, counted from 0.

        Examples:
            >>> TrainingOptions(epochs=10, learning_rate=1.0).rate_of_epoch(5)
            0.51
        """
        if self.scheduler == "none":
            return self.learning_rate
        share = (1 + math.cos(math.pi * number / self.epochs)) / 2
        return self.learning_rate * (_COSINE_FLOOR + (1 - _COSINE_FLOOR) * share)
