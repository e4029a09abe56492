"""How far apart a model's own forward passes may come out, by the precision it computes in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True, slots=True)
class Tolerance:
    """How far the same computation may come out apart.

    Attributes:
        weight: of blocks of rows against whole rows on the same input.
        logits: root mean square over the vocabulary, relative to the standard deviation there, of
            three rows in four: a router or an index may decide a tie the other way in a few.
        mean: whether ``weight`` bounds the mean over rows instead of the largest difference: in
            half precision one score that rounds the other way moves a single weight by much.
    """

    weight: float
    logits: float
    mean: bool = True

    @classmethod
    def of(cls, model: Any) -> Tolerance:
        """By the type in which a model computes."""
        reduced = model.device.type == "cuda" and torch.get_float32_matmul_precision() != "highest"
        by_dtype = {torch.float32: cls(3e-5, 1e-3, False), torch.float16: cls(5e-3, 0.03)}
        found = by_dtype.get(model.dtype, cls(2e-2, 0.15))
        if reduced and model.dtype == torch.float32:
            found = by_dtype[torch.float16]
        if getattr(model.config, "quantization_config", None) is not None:
            # Activations are rounded as well, by scales that depend on all of them.
            found = cls(max(found.weight, 2e-2), 0.3)
        return found

    def apart(self, difference: torch.Tensor, due: torch.Tensor) -> float:
        """How far apart tensors [heads, rows, anything] are, relative to what is due."""
        if self.mean:
            return float(difference.sum(-1).mean() / due.abs().sum(-1).mean().clamp_min(1e-6))
        return float(difference.max()) / max(1.0, float(due.abs().max()))


def logits_apart(found: torch.Tensor, due: torch.Tensor) -> float:
    """Root mean square over the vocabulary, relative to its spread, of three rows in four."""
    difference = (found.float() - due.float()).square().mean(-1).sqrt()
    spread = due.float().std(-1).clamp_min(1e-6)
    return float((difference / spread).quantile(0.75))
