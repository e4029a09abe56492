"""Numbers that are none: refused before they are stored, and found where they were.

A trace has no place for NaN or infinity. What is made of it (means, norms, scores of detectors)
would be NaN as well, far from the cause. A log-probability of minus infinity is refused too: a
model that gives its own token the probability 0 has overflowed, and a given answer with such a
token has no finite score.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from hallutrace.errors import NonFiniteError

if TYPE_CHECKING:
    from hallutrace.store.trace import Trace

Number = TypeVar("Number", bound=np.floating)

NON_FINITE_FIX = (
    "extract it again, or leave it out (`null` as its label, or `hallutrace subset` without it)"
)

# Tensors of floating-point numbers, by their names in the format.
FLOATS = (
    "logprob",
    "token_entropy",
    "logsumexp",
    "alternatives.logprob",
    *(
        f"marginals.{name}"
        for name in (
            "log_diagonal",
            "log_square",
            "diagonal",
            "received_mean",
            "previous",
            "entropy",
            "mass",
            "square",
            "rough",
        )
    ),
    "marginals.value_norm",
    "edges.weight",
    "hidden",
    "hidden.scale",
)
_FLOATING: dict[str, Any] = {"F16": "<f2", "F32": "<f4"}
_BFLOAT16_EXPONENT = 0x7F80  # all ones in what is NaN or infinite


def count_not_finite(dtype: str, raw: NDArray[np.uint8]) -> int:
    """How many numbers of a stored tensor are NaN or infinite.

    Args:
        dtype: as safetensors names it.
        raw: its bytes.
    """
    if dtype == "BF16":
        bits = raw.view("<u2") & _BFLOAT16_EXPONENT
        return int(np.count_nonzero(bits == _BFLOAT16_EXPONENT))
    if dtype not in _FLOATING:
        return 0
    values = raw.view(_FLOATING[dtype])
    return int(values.size - np.count_nonzero(np.isfinite(values)))


def require_finite(values: NDArray[Number], what: str, trace: Trace) -> NDArray[Number]:
    """Gives the values back if all are finite.

    Args:
        values: any shape.
        what: they are, for the message.
        trace: that they are of.

    Raises:
        NonFiniteError: naming the trace.
    """
    if np.isfinite(values).all():
        return values
    bad = np.count_nonzero(~np.isfinite(values))
    raise NonFiniteError(
        f"Expected finite {what}, got {bad:,} of {values.size:,} numbers that are NaN or infinite "
        f"in the trace {trace.id!r}, sample {trace.sample} - {NON_FINITE_FIX}"
    )
