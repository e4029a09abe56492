"""Checks for NaN and infinity in stored tensors and in arrays computed from them.

A trace may not contain NaN or infinity: values computed from it (means, norms, detector scores)
would be NaN as well, far from the cause. A log-probability of minus infinity is an error too: a
model that assigns probability 0 to its own token has overflowed, and a given answer with such a
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

_FLOATING: dict[str, Any] = {"F16": "<f2", "F32": "<f4"}
_BFLOAT16_EXPONENT = 0x7F80  # exponent bits, all ones in NaN and infinity


def count_not_finite(dtype: str, raw: NDArray[np.uint8]) -> int:
    """Number of values of a stored tensor that are NaN or infinite.

    Args:
        dtype: in the notation of safetensors, such as ``F16``; 0 is returned for integers.
        raw: bytes of the tensor, uint8 [bytes].

    Examples:
        >>> import numpy as np
        >>> count_not_finite("F32", np.array([1, np.nan, np.inf], np.float32).view(np.uint8))
        2
    """
    if dtype == "BF16":
        bits = raw.view("<u2") & _BFLOAT16_EXPONENT
        return int(np.count_nonzero(bits == _BFLOAT16_EXPONENT))
    if dtype not in _FLOATING:
        return 0
    values = raw.view(_FLOATING[dtype])
    return int(values.size - np.count_nonzero(np.isfinite(values)))


def require_finite(values: NDArray[Number], what: str, trace: Trace) -> NDArray[Number]:
    """Returns the values if all of them are finite.

    Args:
        values: floating-point array of any shape.
        what: name of the values, for the error message.
        trace: the trace that they belong to, for the error message.

    Raises:
        NonFiniteError: a value is NaN or infinite; the message names the trace.
    """
    if np.isfinite(values).all():
        return values
    bad = np.count_nonzero(~np.isfinite(values))
    raise NonFiniteError(
        f"Expected finite {what}, got {bad:,} of {values.size:,} numbers that are NaN or infinite "
        f"in the trace {trace.id!r}, sample {trace.sample} - {NON_FINITE_FIX}"
    )
