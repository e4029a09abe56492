"""`attneigvals`: the largest eigenvalues of each head's attention itself."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hallutrace.detect.detectors.lapeigvals import LapEigvals
from hallutrace.detect.trace_needs import Needs
from hallutrace.store.trace import Trace


class AttnEigvals(LapEigvals):
    """As :class:`~hallutrace.detect.detectors.lapeigvals.LapEigvals`, without the degree matrix.

    Formula: the eigenvalues of a lower triangular A are its diagonal A_jj, j < T = N - 1; the
    ``top_k`` largest of each layer and head, projected and given to a logistic regression.

    Source and departures: as LapEigvals, whose paper has this as a baseline.

    Examples:
        >>> trace = hallutrace.open(run)[0]
        >>> AttnEigvals().feature(trace).shape
        (320,)
    """

    name = "attneigvals"
    needs = Needs(marginals=("diagonal",))

    def values(self, trace: Trace) -> NDArray[np.float32]:
        """The diagonal of the rows that produced something, float32 [layers, heads, N - 1]."""
        return trace.marginals.diagonal[..., :-1]
