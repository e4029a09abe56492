"""Scores of a detector as curves small enough for a page: thresholds, histograms, calibration."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hallutrace.detect.metrics import BINS

MOST_CUTS = 200
HISTOGRAM_BINS = 30
_FIRST_CUTS = 50  # of those, crowded where few traces are flagged
_TAIL = 0.5  # percent of the scores at either end that share the last bin of a histogram


@dataclass(frozen=True)
class Cuts:
    """What thresholds give: a trace is flagged if its score is at least the threshold.

    Attributes:
        thresholds: float32 [cuts], falling; the first is infinite and flags nothing, the last flags
            everything.
        hits: uint32 [cuts], hallucinated answers that are flagged.
        alarms: uint32 [cuts], right answers that are flagged.
        presets: number of the cut of ``fpr5`` (most hits with at most 5% of the right answers
            flagged), ``f1`` (largest F1) and ``youden`` (largest recall less false-alarm rate);
            the strictest where several are as good.
    """

    thresholds: NDArray[np.float32]
    hits: NDArray[np.uint32]
    alarms: NDArray[np.uint32]
    presets: dict[str, int]


def cuts(scores: ArrayLike, labels: ArrayLike, most: int = MOST_CUTS) -> Cuts:
    """Counts at thresholds, exact at each; ROC and precision-recall curves go through them.

    Args:
        scores: [traces], finite; taken as float32, as a page has them.
        labels: [traces], 1 hallucinated, 0 right; both there.
        most: number of cuts; of more, those are kept that are spread over the ranks of the scores,
            and all presets.

    Examples:
        >>> found = cuts([0.9, 0.5, 0.4, 0.1], [1, 0, 1, 0])
        >>> found.hits.tolist(), found.alarms.tolist(), found.presets
        ([0, 1, 1, 2, 2], [0, 0, 1, 1, 2], {'fpr5': 1, 'f1': 3, 'youden': 1})
    """
    values, truth = np.asarray(scores, np.float32), np.asarray(labels)
    order = np.argsort(-values, kind="stable")
    ordered = values[order]
    ends = np.append(np.flatnonzero(ordered[1:] != ordered[:-1]), len(ordered) - 1)
    thresholds = np.append(np.float32(np.inf), ordered[ends])
    hits = np.append(0, np.cumsum(truth[order] == 1)[ends])
    alarms = np.append(0, np.cumsum(truth[order] == 0)[ends])
    presets = _presets(hits, alarms)
    kept = _spread(len(thresholds), most, list(presets.values()))
    return Cuts(
        thresholds[kept].astype(np.float32),
        hits[kept].astype(np.uint32),
        alarms[kept].astype(np.uint32),
        {name: int(np.searchsorted(kept, at)) for name, at in presets.items()},
    )


def _presets(hits: NDArray[Any], alarms: NDArray[Any]) -> dict[str, int]:
    positives, negatives = hits[-1], alarms[-1]
    allowed = np.flatnonzero(alarms <= 0.05 * negatives + 1e-9)
    f1 = 2 * hits / (hits + alarms + positives)
    # Compared as whole numbers: rounding must not choose among equals.
    youden = hits * negatives - alarms * positives
    return {
        "fpr5": int(allowed[np.argmax(hits[allowed])]),
        "f1": int(np.argmax(f1)),
        "youden": int(np.argmax(youden)),
    }


def _spread(count: int, most: int, always: list[int]) -> NDArray[np.int64]:
    """At most ``most`` of ``count`` places: both ends, those given, and others between."""
    if count <= most:
        return np.arange(count)
    free = most - len(set(always)) - 2
    crowded = np.geomspace(1, count - 1, min(_FIRST_CUTS, free // 4))
    even = np.linspace(0, count - 1, free - len(crowded))
    between = np.rint(np.concatenate([crowded, even])).astype(np.int64)
    return np.unique(np.concatenate([between, [0, count - 1, *always]]))


def histogram(scores: ArrayLike, labels: ArrayLike, bins: int = HISTOGRAM_BINS) -> dict[str, Any]:
    """Scores by label in bins of equal width; the outermost hold all that lies beyond them.

    Args:
        scores: [traces], finite.
        labels: [traces], 1 hallucinated, 0 right.
        bins: how many.

    Returns:
        ``edges`` float64 [bins + 1], ``hallucinated`` and ``right`` uint32 [bins].

    Examples:
        >>> histogram([0.0, 0.4, 1.0], [0, 1, 1], bins=2)["hallucinated"]
        array([1, 1], dtype=uint32)
    """
    values, truth = np.asarray(scores, np.float64), np.asarray(labels)
    low, high = np.percentile(values, [_TAIL, 100 - _TAIL])
    if not high > low:
        low, high = float(values.min()), float(values.max())
    edges = np.histogram_bin_edges([], bins, (low, high))
    inside = np.clip(values, edges[0], edges[-1])
    by_class = {
        name: np.histogram(inside[truth == label], edges)[0].astype(np.uint32)
        for name, label in (("hallucinated", 1), ("right", 0))
    }
    return {"edges": edges, **by_class}


def risks(
    series: NDArray[np.float64], folds: NDArray[Any], curves: Sequence[Sequence[Sequence[float]]]
) -> NDArray[np.float64]:
    """Scores as probabilities, each by the curve of its fold.

    Args:
        series: float64 [series, traces].
        folds: int [traces].
        curves: slope and intercept, [series][folds].

    Returns:
        float64 [series, traces], from 0 to 1.

    Examples:
        >>> risks(np.array([[0.0, 2.0]]), np.array([0, 1]), [[(1.0, 0.0), (-1.0, 2.0)]])
        array([[0.5, 0.5]])
    """
    slopes, levels = np.moveaxis(np.asarray(curves, np.float64), -1, 0)[:, :, folds]
    return np.asarray(np.exp(-np.logaddexp(0.0, -(slopes * series + levels))))


def calibration(
    probabilities: NDArray[np.float64], labels: ArrayLike, bins: int = BINS
) -> dict[str, NDArray[Any]]:
    """Risks against the shares that came true, in bins of equal width as the ECE has them.

    Args:
        probabilities: float64 [series, traces], from 0 to 1.
        labels: [traces], 1 hallucinated, 0 right.
        bins: how many; a bin holds its upper edge, the first one 0 too.

    Returns:
        ``count`` uint32 [bins] (a trace counts once for each series), ``risk`` and ``share``
        float64 [bins]: mean probability, and share of hallucinated answers; NaN in empty bins.

    Examples:
        >>> calibration(np.array([[0.2, 0.9]]), [0, 1], bins=2)["risk"]
        array([0.2, 0.9])
    """
    truth = np.broadcast_to(np.asarray(labels) == 1, probabilities.shape).ravel()
    values = probabilities.ravel()
    bin_of = np.clip(np.ceil(values * bins).astype(np.int64) - 1, 0, bins - 1)
    count = np.bincount(bin_of, minlength=bins)
    sums = [np.bincount(bin_of, weights, minlength=bins) for weights in (values, truth)]
    means = [np.divide(one, count, out=np.full(bins, np.nan), where=count > 0) for one in sums]
    return {"count": count.astype(np.uint32), "risk": means[0], "share": means[1]}
