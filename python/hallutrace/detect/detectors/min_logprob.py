"""`min-logprob`: the least likely token of the answer."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hallutrace.detect.base import Scorer, Source
from hallutrace.store.trace import Trace


class MinLogprob(Scorer):
    """The negative log-probability of the answer token that the model found least likely.

    Formula: max_t -ln p(y_t | y_<t, x), at temperature 1, end-of-sequence included if it came.

    Source: a usual baseline; after Manakul et al. 2023, SelfCheckGPT, section 4.1 (Max(-log p));
    not checked against its text.

    Examples:
        >>> trace = hallutrace.open(run)[0]
        >>> MinLogprob().token_scores(trace).shape == trace.answer_tokens.shape
        True
    """

    name = "min-logprob"
    source = Source("after Manakul et al. 2023, SelfCheckGPT, section 4.1 (Max(-log p))", "text")

    def score(self, trace: Trace) -> float:
        """The largest negative log-probability of a token, nats."""
        return -float(trace.logprob.min())

    def token_scores(self, trace: Trace) -> NDArray[np.float64]:
        """Negative log-probability of each answer token, float64 [A], nats."""
        return -trace.logprob.astype(np.float64)
