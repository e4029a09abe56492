"""Numbers that are not finite, refused by the name of their trace."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from hallutrace.errors import NonFiniteError
from hallutrace.trace import Trace

Number = TypeVar("Number", bound=np.floating)

MENDING = (
    "extract it again, or leave it out (`null` as its label, or `hallutrace subset` without it)"
)


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
        f"in the trace {trace.id!r}, sample {trace.sample} - {MENDING}"
    )
