"""`length`: how long the answer is; a control."""

from __future__ import annotations

from hallutrace.detect.base import Scorer
from hallutrace.store.trace import Trace


class Length(Scorer):
    """The number of answer tokens, end-of-sequence included if it came.

    Formula: A. A detector that does no better than this has only found that long answers are wrong,
    or short ones.

    Source: ours, a control.

    Examples:
        >>> trace = hallutrace.open(run)[0]
        >>> Length().score(trace) > 0
        True
    """

    name = "length"

    def score(self, trace: Trace) -> float:
        """Answer tokens."""
        return float(len(trace.logprob))
