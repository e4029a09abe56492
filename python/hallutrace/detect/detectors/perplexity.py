"""`perplexity`: how unlikely the model found its own answer."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hallutrace.detect.base import Scorer, Source
from hallutrace.store.trace import Trace


class Perplexity(Scorer):
    """The mean negative log-probability of the answer tokens, the logarithm of perplexity.

    Formula: -1/A sum_t ln p(y_t | y_<t, x), at temperature 1, end-of-sequence included if it came.

    Source: the usual baseline; e.g. Malinin and Gales 2021, Uncertainty Estimation in
    Autoregressive Structured Prediction (length-normalised sequence likelihood; not checked against
    its text). Departure: the logarithm is not undone, which orders traces the same and does not
    overflow.

    Examples:
        >>> trace = hallutrace.open(run)[0]
        >>> Perplexity().token_scores(trace).shape == trace.answer_tokens.shape
        True
    """

    name = "perplexity"
    source = Source(
        "the usual baseline; e.g. Malinin and Gales 2021, Uncertainty Estimation in "
        "Autoregressive Structured Prediction",
        "text",
    )

    def score(self, trace: Trace) -> float:
        """Mean negative log-probability, nats."""
        return -float(np.mean(trace.logprob, dtype=np.float64))

    def token_scores(self, trace: Trace) -> NDArray[np.float64]:
        """Negative log-probability of each answer token, float64 [A], nats."""
        return -trace.logprob.astype(np.float64)
