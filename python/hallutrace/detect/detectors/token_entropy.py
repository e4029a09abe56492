"""`token-entropy`: how open the choice of each answer token was."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hallutrace.detect.base import Scorer, Source
from hallutrace.store.trace import Trace


class TokenEntropy(Scorer):
    """The mean entropy of the distributions that the answer tokens were drawn from.

    Formula: 1/A sum_t H(p(. | y_<t, x)), over the whole vocabulary, at temperature 1, nats.

    Source: a usual baseline; after Manakul et al. 2023, SelfCheckGPT, section 4.1 (Avg(H)); not
    checked against its text.

    Examples:
        >>> trace = hallutrace.open(run)[0]
        >>> TokenEntropy().token_scores(trace).shape == trace.answer_tokens.shape
        True
    """

    name = "token-entropy"
    source = Source("after Manakul et al. 2023, SelfCheckGPT, section 4.1 (Avg(H))", "text")

    def score(self, trace: Trace) -> float:
        """Mean entropy, nats."""
        return float(np.mean(trace.token_entropy, dtype=np.float64))

    def token_scores(self, trace: Trace) -> NDArray[np.float64]:
        """Entropy at each answer token, float64 [A], nats."""
        return trace.token_entropy.astype(np.float64)
