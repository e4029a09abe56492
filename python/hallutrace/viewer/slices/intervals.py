"""Intervals of shares: of answers that come in groups, and of few answers."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from hallutrace.splits import numbered

LEVEL = 0.95
DRAWS = 1000
_NORMAL = 1.959963984540054  # quantile of (1 + LEVEL) / 2


def wilson(share: float, count: float) -> tuple[float, float]:
    """Wilson's 95% interval of a share of independent answers.

    Args:
        share: from 0 to 1.
        count: of answers, or of groups where answers of a group go together.

    Source: Wilson 1927, Probable Inference, the Law of Succession, and Statistical Inference.

    Examples:
        >>> low, high = wilson(0.0, 10)
        >>> round(low, 3), round(high, 3)
        (0.0, 0.278)
    """
    if count <= 0:
        return 0.0, 1.0
    square = _NORMAL**2 / count
    middle = (share + square / 2) / (1 + square)
    half = _NORMAL / (1 + square) * math.sqrt(share * (1 - share) / count + square / (4 * count))
    return max(middle - half, 0.0), min(middle + half, 1.0)


def share_by_group(
    labels: NDArray[np.int8], groups: Sequence[str], draws: int = DRAWS, seed: int = 0
) -> tuple[float, float, float]:
    """Share of hallucinated answers, with a 95% bootstrap interval over groups.

    A share of 0 or 1 does not vary over draws: its interval is Wilson's, of as many answers as
    there are groups.

    Args:
        labels: int8 [traces], 1 hallucinated, 0 right.
        groups: of each trace.
        draws: of the bootstrap.
        seed: of the draws.

    Returns:
        Share, and the ends of its interval; three times NaN without labels.

    Examples:
        >>> labels = np.array([1, 0, 0, 1, 0, 0, 0, 0], np.int8)
        >>> share, low, high = share_by_group(labels, list("aabbccdd"))
        >>> share, low < share < high
        (0.25, True)
    """
    from hallutrace.detect.evaluation.bootstrap import Resampling

    if not len(labels):
        return math.nan, math.nan, math.nan
    share = float(np.mean(labels == 1))
    if share in (0.0, 1.0):
        return share, *wilson(share, len(set(groups)))
    of_group = numbered(groups)
    sizes = np.bincount(of_group)
    hits = np.bincount(of_group, labels == 1)
    names = [str(number) for number in range(len(sizes))]
    # One row for each group: draws are of groups, and shares are ratios of their sums.
    resampling = Resampling(
        np.zeros(len(sizes), np.int64), names, np.zeros(len(sizes), np.int64), draws, seed, False
    )
    found = [weights @ hits / (weights @ sizes) for weights in resampling.weights()]
    low, high = np.quantile(np.concatenate(found), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return share, float(low), float(high)
