"""Tolerances for differences between forward passes of a model, by its precision."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True, slots=True)
class Tolerance:
    """Largest differences that rounding may cause.

    Attributes:
        weight: bound on :meth:`apart` of attention in blocks of rows and of all rows at once.
        logits: bound on :func:`logits_apart`.
        mean: whether ``weight`` bounds the mean difference instead of the largest one: in half
            precision the rounding of one score can change a single weight by much.

    Examples:
        >>> Tolerance(weight=3e-5, logits=1e-3, mean=False).apart(
        ...     torch.tensor([[[0.0, 0.25]]]), torch.tensor([[[0.5, 0.5]]])
        ... )
        0.25
    """

    weight: float
    logits: float
    mean: bool = True

    @classmethod
    def of(cls, model: Any) -> Tolerance:
        """The tolerance for the dtype, device and quantisation of a model."""
        uses_tf32 = (
            model.device.type == "cuda" and torch.get_float32_matmul_precision() != "highest"
        )
        by_dtype = {torch.float32: cls(3e-5, 1e-3, False), torch.float16: cls(5e-3, 0.03)}
        tolerance = by_dtype.get(model.dtype, cls(2e-2, 0.15))
        if uses_tf32 and model.dtype == torch.float32:
            tolerance = by_dtype[torch.float16]
        if getattr(model.config, "quantization_config", None) is not None:
            # Quantised activations share a scale, so each depends on all others of the batch.
            tolerance = cls(max(tolerance.weight, 2e-2), 0.3)
        return tolerance

    def apart(self, difference: torch.Tensor, due: torch.Tensor) -> float:
        """The relative difference of tensors [heads, rows, any].

        Args:
            difference: absolute differences.
            due: the expected values.
        """
        if self.mean:
            return float(difference.sum(-1).mean() / due.abs().sum(-1).mean().clamp_min(1e-6))
        return float(difference.max()) / max(1.0, float(due.abs().max()))


def logits_apart(found: torch.Tensor, due: torch.Tensor) -> float:
    """The relative difference of logits, as the 75% quantile over rows.

    The difference of a row is the root mean square over the vocabulary, divided by the standard
    deviation of the expected logits. The quantile ignores a few rows in which a router or an index
    breaks a tie differently.

    Args:
        found: [rows, vocabulary].
        due: the expected logits, [rows, vocabulary].

    Examples:
        >>> logits_apart(torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[0.0, 1.0, 2.0]]))
        1.0
    """
    difference = (found.float() - due.float()).square().mean(-1).sqrt()
    spread = due.float().std(-1).clamp_min(1e-6)
    return float((difference / spread).quantile(0.75))
