"""The traces that a report carries in full: those in which something went most wrong."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def worst_traces(
    logprob: NDArray[np.floating],
    labels: NDArray[np.integer] | None = None,
    ranks: NDArray[np.floating] | None = None,
) -> NDArray[np.intp]:
    """The judged traces, worst first.

    With ranks the worst are those whose label and rank are furthest apart: missed hallucinations
    and false alarms. With labels alone they are the hallucinated answers of the highest mean
    log-probability, then the right ones of the lowest. With neither all traces are returned, the
    lowest mean log-probability first.

    Args:
        logprob: mean log-probability of each answer, [traces]; NaN counts as 0.
        labels: [traces], 1 hallucinated, 0 right, -1 neither.
        ranks: of the scores by a detector among those of their fold, [traces], 0 to 1; NaN where a
            trace has none.

    Returns:
        Positions, without the traces that have no label.

    Source: ours.

    Examples:
        >>> logprob = np.array([-1.0, -0.1, -2.0, -0.5])
        >>> worst_traces(logprob, np.array([1, 1, 0, -1])).tolist()
        [1, 0, 2]
        >>> worst_traces(logprob, np.array([1, 1, 0, 0]), np.array([0.9, 0.2, 0.4, 0.6])).tolist()
        [1, 3, 2, 0]
    """
    sure = np.nan_to_num(np.asarray(logprob, np.float64), nan=0.0)
    if labels is None or not (labels >= 0).any():
        return np.argsort(sure, kind="stable")
    hallucinated, unknown = labels == 1, labels < 0
    if ranks is None or not np.isfinite(ranks).any():
        order = np.lexsort((np.where(hallucinated, -sure, sure), ~hallucinated, unknown))
    else:
        order = np.lexsort((np.where(hallucinated, ranks, 1 - ranks), np.isnan(ranks), unknown))
    return order[: int((~unknown).sum())]
