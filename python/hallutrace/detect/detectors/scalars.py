"""`scalars`: the four cheap numbers of an answer together."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hallutrace.detect.linear import LinearDetector
from hallutrace.store.trace import Trace


class Scalars(LinearDetector):
    """Logistic regression on length, mean and least log-probability, and mean token entropy.

    What can be had without looking inside the model: a detector that reads attention or hidden
    states has to beat this. Scaling and penalty are chosen on the validation part.

    Source: ours, a control.

    Examples:
        >>> trace = hallutrace.open(run)[0]
        >>> Scalars().feature(trace).shape
        (4,)
    """

    name = "scalars"

    def feature(self, trace: Trace) -> NDArray[np.float32]:
        """Length, mean logprob, least logprob, mean token entropy, float32 [4]."""
        logprob, entropy = trace.logprob, trace.token_entropy
        return np.array(
            [len(logprob), logprob.mean(), logprob.min(), entropy.mean()], dtype=np.float32
        )
