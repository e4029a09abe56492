"""`sinkprobe` and `sinkprobe-later`: the tokens that draw most attention in each head."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from hallutrace.detect.base import Source
from hallutrace.detect.detectors.lapeigvals import LapEigvals
from hallutrace.detect.trace_needs import Needs
from hallutrace.store.trace import Trace


def sink_scores(
    diagonal: NDArray[np.float32], received_mean: NDArray[np.float32], own_row: bool
) -> NDArray[np.float32]:
    """Mean attention that each token receives during generation, where T = N - 1 rows are seen.

    Args:
        diagonal: float32 [..., N], what a token gives itself.
        received_mean: float32 [..., N], mean over the T - 1 - j rows after token j.
        own_row: whether the token's own row counts: the mean over T - j rows then.

    Returns:
        float32 [..., N - 1], by token.
    """
    later = received_mean[..., :-1]
    if not own_row:
        return later
    rows = diagonal.shape[-1] - 1
    own = (1 / np.arange(rows, 0, -1)).astype(np.float32)
    return later + own * (diagonal[..., :-1] - later)


class SinkProbe(LapEigvals):
    """Logistic regression on the ``top_k`` largest sink scores of each layer and head.

    Formula: s_j = 1/(T - j) sum_{i >= j} A_ij, the token's own row included (positions from 0), so
    that the eigenvalues of LapEigvals are s_j - A_jj; the largest of each head, all heads and
    layers concatenated. The last row of the replay produced nothing: T = N - 1.

    Source: Binkowski et al. 2026, Attention Sinks as Internal Signals for Hallucination Detection
    (arXiv 2604.10697), equation 1, after two secondary quotations of it and its identity with
    LapEigvals; not checked against its text. That the regression is LapEigvals' (512 principal
    components, balanced classes) and that attention is that of generation is our reading. The
    norms of value vectors, which the paper uses to explain and not to detect, are in the trace as
    ``value_norm``.

    Examples:
        >>> trace = hallutrace.open(run)[0]
        >>> SinkProbe().feature(trace).shape
        (320,)
    """

    name = "sinkprobe"
    source = Source(
        "Binkowski et al. 2026, Attention Sinks as Internal Signals for Hallucination Detection "
        "(arXiv 2604.10697), equation 1, after secondary quotations of it",
        "text",
    )
    own_row: ClassVar[bool] = True

    def values(self, trace: Trace) -> NDArray[np.float32]:
        """Sink score of each token, float32 [layers, heads, N - 1]."""
        marginals = trace.marginals
        return sink_scores(marginals.diagonal, marginals.received_mean, self.own_row)


class SinkProbeLater(SinkProbe):
    """As :class:`SinkProbe`, over later rows alone: s_j = 1/(T - 1 - j) sum_{i > j} A_ij.

    Source: the other reading of the paper's equation among secondary sources.

    Examples:
        >>> trace = hallutrace.open(run)[0]
        >>> SinkProbeLater().feature(trace).shape
        (320,)
    """

    name = "sinkprobe-later"
    needs = Needs(marginals=("received_mean",))
    own_row = False
