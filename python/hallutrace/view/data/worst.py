"""The traces that a report carries in full: those in which something went most wrong."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray


def worst_traces(
    traces: Mapping[str, Any], label: str | None, detector: str | None, count: int
) -> tuple[NDArray[np.intp], str]:
    """The worst traces, worst first, and a sentence that says what makes them so.

    With scores they are the ones whose label and rank of score are furthest apart: missed
    hallucinations and false alarms. With labels alone they are the hallucinated answers of the
    highest mean log-probability, then the right ones of the lowest. With neither they are the
    answers of the lowest mean log-probability.

    Args:
        traces: columns, as :func:`hallutrace.view.data.trace_list.trace_list` gives them.
        label: name of a protocol; None if there is none.
        detector: its label in the evaluation; None if there is none.
        count: at most so many.

    Returns:
        Positions in the columns, and the sentence.

    Source: ours.

    Examples:
        >>> traces = {"mean_logprob": np.array([-1.0, -0.1, -2.0, -0.5], np.float32)}
        >>> traces |= {"labels": {"contains": np.array([1, 1, 0, 0], np.int8)}, "scores": {}}
        >>> worst_traces(traces, "contains", None, 3)[0].tolist()
        [1, 0, 2]
    """
    logprob = np.nan_to_num(np.asarray(traces["mean_logprob"], np.float64), nan=0.0)
    labels = traces["labels"].get(label) if label else None
    scores = traces["scores"].get(detector) if detector else None
    if labels is None or not (labels >= 0).any():
        return np.argsort(logprob, kind="stable")[:count], "of the lowest mean log-probability"
    hallucinated, unknown = labels == 1, labels < 0
    if scores is None or not np.isfinite(scores).any():
        order = np.lexsort((np.where(hallucinated, -logprob, logprob), ~hallucinated, unknown))
        sentence = "that are hallucinated with the highest mean log-probability"
    else:
        known = np.isfinite(scores)
        ranks = _shares_below(scores, known)
        order = np.lexsort((np.where(hallucinated, ranks, 1 - ranks), ~known, unknown))
        sentence = f"whose label and score by {detector} are furthest apart"
    return order[: min(count, int((~unknown).sum()))], sentence


def _shares_below(scores: NDArray[Any], known: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The share of known scores below each, ties half."""
    ordered = np.sort(scores[known])
    below = np.searchsorted(ordered, scores, "left") + np.searchsorted(ordered, scores, "right")
    shares: NDArray[np.float64] = below / (2 * len(ordered))
    return shares
