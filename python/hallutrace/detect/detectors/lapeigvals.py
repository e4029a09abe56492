"""`lapeigvals`: the largest eigenvalues of the Laplacian of each head's attention."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from hallutrace.detect.base import Source
from hallutrace.detect.features import top_values
from hallutrace.detect.linear import Balanced, Components, LinearDetector
from hallutrace.detect.trace_needs import Needs
from hallutrace.store.trace import Trace


def laplacian_eigenvalues(
    diagonal: NDArray[np.float32], received_mean: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Eigenvalues of L = D - A for attention during generation, where T = N - 1 rows are seen.

    A is lower triangular and D diagonal, so they are the diagonal of L. With D_jj the mean of
    column j over the T - j rows from j on, and m_j the mean over the T - 1 - j rows after j::

        D_jj - A_jj = (A_jj + (T - 1 - j) m_j) / (T - j) - A_jj = (1 - 1 / (T - j)) (m_j - A_jj)

    Args:
        diagonal: float32 [..., N], A_jj.
        received_mean: float32 [..., N], m_j.

    Returns:
        float32 [..., N - 1], by token.
    """
    rows = diagonal.shape[-1] - 1
    share = (1 - 1 / np.arange(rows, 0, -1)).astype(np.float32)
    difference = received_mean[..., :-1] - diagonal[..., :-1]
    difference *= share
    return difference


class LapEigvals(LinearDetector):
    """Logistic regression on the ``top_k`` largest Laplacian eigenvalues of each layer and head.

    Formula: L = D - A, D_jj = 1/(T - j) sum_{i >= j} A_ij (positions from 0), whose eigenvalues are
    D_jj - A_jj; those of each head are sorted, the largest kept, all heads and layers concatenated,
    projected on 512 principal components and given to a logistic regression with balanced classes.
    The authors read attention during generation: the last of the N tokens has no row, T = N - 1.

    Departures: scaling and penalty are chosen on the validation part (theirs:
    ``standardize=False, C=1``); a trace with fewer tokens than ``top_k`` is filled up with zeros,
    where the authors choose ``top_k`` below the shortest.

    Source: Binkowski et al. 2025, Hallucination Detection in LLMs Using Spectral Features of
    Attention Maps (arXiv 2502.17598), equations 1 to 4 (not checked against its text); public code
    graphml-lab-pwr/lapeigvals, ``features/attention_weights.py``, ``features/attn_feats.py`` and
    ``probe_models/lr.py``, read.

    Examples:
        >>> trace = hallutrace.open(run)[0]
        >>> LapEigvals().feature(trace).shape
        (320,)
    """

    name = "lapeigvals"
    source = Source(
        "Binkowski et al. 2025, Hallucination Detection in LLMs Using Spectral Features of "
        "Attention Maps (arXiv 2502.17598), equations 1 to 4",
        "code",
        "graphml-lab-pwr/lapeigvals",
    )
    needs = Needs(marginals=("diagonal", "received_mean"))
    by_head = True

    class Options(LinearDetector.Options):
        """Of the eigenvalues, and of the regression as the authors' code has it."""

        components: Components = 512
        balanced: Balanced = True
        top_k: int = Field(
            10,
            ge=1,
            description="largest eigenvalues kept of each layer and head (the authors compare 5 to "
            "100)",
        )

    options: Options

    def values(self, trace: Trace) -> NDArray[np.float32]:
        """What is sorted, float32 [layers, heads, tokens]."""
        marginals = trace.marginals
        return laplacian_eigenvalues(marginals.diagonal, marginals.received_mean)

    def feature(self, trace: Trace) -> NDArray[np.float32]:
        """The largest of each layer and head, descending, float32 [layers * heads * top_k]."""
        return top_values(self.values(trace), self.options.top_k).reshape(-1)
