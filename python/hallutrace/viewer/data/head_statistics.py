"""Hallucinated against right answers, head by head: difference, interval, test, AUROC.

Traces of a group (of an entity or a question) belong together, so the standard error is that of
sums over groups: what a bootstrap that draws groups converges to, without its noise and its time.
Where each group is one trace it is the standard error of Welch's test. P values are corrected by
Holm for the number of heads: that needs no assumption on how heads depend on each other, and each
head that is marked is a claim by itself, of which none should be false. Intervals are widened by
the same steps, so that an interval leaves out 0 where the corrected p value is below the level, and
nowhere else.

Source: groups after Liang and Zeger 1986, Longitudinal Data Analysis Using Generalized Linear
Models; widened intervals after Serlin 1993, Confidence Intervals and the Scientific Method: A Case
for Holm on the Range (neither checked against its text).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from hallutrace.detect.metrics import holm

Array = NDArray[np.float64]

LEVEL = 0.95
LEAST_GROUPS = 10
"""Groups of each class below which nothing is tested: the normal distribution would not fit."""

COLUMNS = 128
"""Heads at a time, which bounds the memory."""

_ROUNDING = 1e-7  # relative; marginals are stored with 11 bits


@dataclass(frozen=True)
class HeadDifferences:
    """Hallucinated less right of each of several heads, all float64 [heads].

    Attributes:
        hallucinated: mean over hallucinated answers.
        right: mean over right ones.
        difference: the first less the second.
        low: of the interval, which holds for all heads together.
        high: of the interval.
        p: two-sided, of the head by itself.
        corrected: p, corrected by Holm.
    """

    hallucinated: Array
    right: Array
    difference: Array
    low: Array
    high: Array
    p: Array
    corrected: Array


def head_differences(
    values: NDArray[np.float32],
    labels: NDArray[np.int8],
    groups: NDArray[np.int64],
    level: float = LEVEL,
) -> HeadDifferences:
    """Compares two classes of traces, head by head.

    Args:
        values: float32 [traces, heads], finite.
        labels: int8 [traces], 1 hallucinated, 0 right; both are there.
        groups: int64 [traces].
        level: of the intervals.

    Examples:
        >>> values = np.array([[0.0], [1.0], [4.0], [5.0]], np.float32)
        >>> found = head_differences(values, np.int8([0, 0, 1, 1]), np.arange(4))
        >>> found.difference.tolist(), bool(found.p[0] < 1e-4)
        ([4.0], True)
    """
    parts = [
        _sums(values[:, begin : begin + COLUMNS].astype(np.float64), labels, groups)
        for begin in range(0, values.shape[1], COLUMNS)
    ]
    hallucinated, right, error = (np.concatenate(one) for one in zip(*parts, strict=True))
    difference = hallucinated - right
    # A head whose values are all the same differs by rounding alone.
    is_same = np.abs(difference) <= _ROUNDING * np.maximum(np.abs(hallucinated), np.abs(right))
    z = np.divide(np.abs(difference), error, out=np.full_like(error, np.inf), where=error > 0)
    z[is_same] = 0
    p = np.array([math.erfc(one / math.sqrt(2)) for one in z])
    corrected = np.array(holm(p.tolist()))
    width = _quantiles(p, corrected, level) * error
    return HeadDifferences(
        hallucinated, right, difference, difference - width, difference + width, p, corrected
    )


def _sums(
    values: Array, labels: NDArray[np.int8], groups: NDArray[np.int64]
) -> tuple[Array, Array, Array]:
    """Means of both classes and the standard error of their difference, [heads] each."""
    risky = labels == 1
    means = [values[chosen].mean(axis=0) for chosen in (risky, ~risky)]
    parts = np.where(risky[:, None], values - means[0], means[1] - values)
    # As Welch: n - 1 of each class where each trace is a group of its own.
    counts = [np.unique(groups[chosen]).size for chosen in (risky, ~risky)]
    factors = [math.sqrt(count / max(count - 1, 1)) for count in counts]
    sizes = int(risky.sum()), int((~risky).sum())
    parts *= np.where(risky, factors[0] / sizes[0], factors[1] / sizes[1])[:, None]
    order = np.argsort(groups, kind="stable")
    starts = np.flatnonzero(np.diff(groups[order], prepend=groups[order][0] - 1))
    by_group = np.add.reduceat(parts[order], starts, axis=0)
    return means[0], means[1], np.sqrt(np.square(by_group).sum(axis=0))


def _quantiles(p: Array, corrected: Array, level: float) -> Array:
    """How many standard errors each interval reaches, by the step that Holm tests the head in."""
    tail, count = 1 - level, len(p)
    last = min(int((corrected <= tail).sum()), count - 1)
    reach = np.empty(count)
    for rank, at in enumerate(np.argsort(p, kind="stable").tolist()):
        reach[at] = NormalDist().inv_cdf(1 - tail / (2 * (count - min(rank, last))))
    return reach


def head_aurocs(values: NDArray[np.float32], labels: NDArray[np.int8]) -> Array:
    """AUROC of each head as a score, ties half, as :func:`hallutrace.detect.metrics.auroc`.

    Args:
        values: float32 [traces, heads], finite.
        labels: int8 [traces], 1 hallucinated, 0 right; both are there.

    Returns:
        float64 [heads]: the chance that the value of a hallucinated answer is larger.

    Examples:
        >>> head_aurocs(np.float32([[0.9], [0.4], [0.4], [0.1]]), np.int8([1, 1, 0, 0]))
        array([0.875])
    """
    found = []
    for begin in range(0, values.shape[1], COLUMNS):
        block = values[:, begin : begin + COLUMNS]
        risky, safe = (np.sort(block[labels == one].T, axis=1) for one in (1, 0))
        found += [_above(one, other) for one, other in zip(risky, safe, strict=True)]
    return np.array(found)


def _above(risky: NDArray[np.float32], safe: NDArray[np.float32]) -> float:
    """Share of pairs in which the first is larger, ties half; both are sorted."""
    below = np.searchsorted(safe, risky, "left").sum(dtype=np.float64)
    not_above = np.searchsorted(safe, risky, "right").sum(dtype=np.float64)
    return float((below + not_above) / 2 / (len(risky) * len(safe)))
