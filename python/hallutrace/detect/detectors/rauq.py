"""`rauq` and `rauq-code`: confidence that passes from token to token along attention."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from hallutrace.detect.base import Scorer, Source
from hallutrace.detect.features import answer_rows
from hallutrace.detect.trace_needs import Needs
from hallutrace.store.trace import Trace

_LEAST = np.finfo(np.float64).tiny


def middle_layers(layers: int) -> slice:
    """The middle third, both ends and one more included: 10 to 22 of 32."""
    return slice(layers // 3, min(-(-2 * layers // 3) + 1, layers))


def uncertainties(
    attention: NDArray[np.float32], logprob: NDArray[np.float32], alpha: float
) -> NDArray[np.float64]:
    """Negative log confidence of each token in each layer.

    The head with the largest mean attention is taken in each layer, the first of equal ones; its
    attention carries confidence from one token to the next.

    Args:
        attention: float32 [layers, heads, A - 1], attention of answer token t to the one before it,
            t = 1 .. A - 1.
        logprob: float32 [A].
        alpha: share of the token's own probability.

    Returns:
        float64 [layers, A].
    """
    layers, _, steps = attention.shape
    wide = attention.astype(np.float64)
    if steps:
        heads = wide.mean(axis=2).argmax(axis=1)
        carried = (1 - alpha) * wide[np.arange(layers), heads]
    probability = np.exp(logprob.astype(np.float64))
    confidence = np.empty((layers, steps + 1))
    confidence[:, 0] = probability[0]
    for token in range(1, steps + 1):
        confidence[:, token] = (
            alpha * probability[token] + carried[:, token - 1] * confidence[:, token - 1]
        )
    found: NDArray[np.float64] = -np.log(np.maximum(confidence, _LEAST))
    return found


class Rauq(Scorer):
    """The paper's RAUQ: the worst layer's mean negative log of a recurrent confidence.

    Formula: c_1 = p(y_1), c_t = alpha p(y_t) + (1 - alpha) a_{t,t-1} c_{t-1}, where a is the
    attention of answer token t to the one before it, in the head of the layer whose mean of it is
    largest; u_l = -1/A sum_t ln c_t; the score is the largest u_l over the middle third of the
    layers.

    Source: Vazhentsev et al. 2025, Uncertainty-Aware Attention Heads (arXiv 2505.20045), equations
    2 to 4, after secondary quotations of them; not checked against its text. Departures: layers are
    counted among those whose attention was captured; confidence is held above 2.2e-308. Stored
    attention is float16: of heads whose means are closer than it resolves (5e-4), which sharp
    attention has, another one may be taken than before storing.

    Examples:
        >>> trace = hallutrace.open(run)[0]
        >>> Rauq().token_scores(trace).shape == trace.answer_tokens.shape
        True
    """

    name = "rauq"
    source = Source(
        "Vazhentsev et al. 2025, Uncertainty-Aware Attention Heads (arXiv 2505.20045), equations 2 "
        "to 4",
        "text",
    )
    needs = Needs(marginals=("previous",))
    offset: ClassVar[float] = 0.0

    class Options(Scorer.Options):
        """How much a token's own probability counts."""

        alpha: float = Field(
            0.2,
            ge=0,
            le=1,
            description="share of the token's own probability (the public code takes .5 for "
            "instruction-tuned models)",
        )

    options: Options

    def attention(self, trace: Trace) -> NDArray[np.float32]:
        """What each answer token after the first gives the one before it, [layers, heads, A - 1].

        Rows P+1 .. N-1 of ``previous``: those of the tokens themselves.
        """
        return answer_rows(trace.marginals.previous, len(trace.logprob))[:, :, 2:]

    def score(self, trace: Trace) -> float:
        """The largest mean over the layers."""
        return float(self._by_layer(trace).mean(axis=1).max()) + self.offset

    def token_scores(self, trace: Trace) -> NDArray[np.float64]:
        """Negative log confidence of each answer token in the layer that decides, float64 [A]."""
        by_layer = self._by_layer(trace)
        decides: NDArray[np.float64] = by_layer[by_layer.mean(axis=1).argmax()]
        return decides

    def _by_layer(self, trace: Trace) -> NDArray[np.float64]:
        attention = self.attention(trace)
        middle = attention[middle_layers(len(attention))]
        return uncertainties(middle, trace.logprob, self.options.alpha)


class RauqCode(Rauq):
    """RAUQ as its public code computes it.

    As :class:`Rauq`, but the attention read for answer token t is, at the row that *produced* it,
    the entry of that row's own position: A_{P-1+t, P-1+t}, a diagonal entry, where the paper's text
    has A_{P+t, P+t-1}. The score is 1 larger, which changes no order.

    Source: IINemo/lm-polygraph, ``estimators/rauq.py`` and the attention it is given; read.

    Examples:
        >>> trace = hallutrace.open(run)[0]
        >>> RauqCode().token_scores(trace).shape == trace.answer_tokens.shape
        True
    """

    name = "rauq-code"
    source = Source(
        "Vazhentsev et al. 2025, Uncertainty-Aware Attention Heads (arXiv 2505.20045)",
        "code",
        "IINemo/lm-polygraph",
    )
    needs = Needs(marginals=("diagonal",))
    offset = 1.0

    def attention(self, trace: Trace) -> NDArray[np.float32]:
        """What each row that produced an answer token after the first gives itself."""
        answer = len(trace.logprob)
        return trace.marginals.diagonal[:, :, -answer:-1]
