"""How well scores separate hallucinated answers from right ones, and calibration of scores.

Higher scores mean more likely hallucinated, and hallucinated is the positive class. Everything here
is plain numpy over arrays; nothing is fitted but :class:`Platt`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hallutrace.errors import InputError

Array = NDArray[np.float64]

FPRS = (0.05, 0.10)
"""False positive rates at which the true positive rate is told."""

METRICS = ("auroc", "auprc", *(f"tpr{round(100 * fpr)}" for fpr in FPRS))
"""Names of what :meth:`Ranked.metrics` gives, in its order."""

BINS = 15
_NEWTON_STEPS = 100


class Ranked:
    """Scores sorted once, so that metrics under many weightings of the traces are cheap.

    A bootstrap draw is a weighting: how often each trace was drawn. Traces of equal score are one
    threshold: nothing depends on their order.

    Args:
        scores: [traces], finite.
        labels: [traces], 1 hallucinated, 0 right.

    Raises:
        InputError: scores that are not finite, other labels, one class only, or lengths that
            differ.
    """

    def __init__(self, scores: ArrayLike, labels: ArrayLike) -> None:
        values, truth = _checked(scores, labels)
        self._order = np.argsort(-values, kind="stable")
        ordered = values[self._order]
        # The last index of each run of equal scores.
        self._ends = np.append(np.flatnonzero(ordered[1:] != ordered[:-1]), len(ordered) - 1)
        self._positive = truth[self._order] == 1

    def metrics(self, weights: ArrayLike | None = None) -> Array:
        """All metrics for each weighting.

        - AUROC: chance that a hallucinated answer scores higher than a right one, ties half.
        - AUPRC: average precision, sum over thresholds of (gain in recall) x precision; no
          interpolation, as scikit-learn has it. Scores without information reach the base rate.
        - TPR at 5% and at 10% FPR: the largest true positive rate of a threshold whose false
          positive rate is at most that; no interpolation.

        Args:
            weights: [draws, traces], not negative, both classes of some weight in each draw; None
                for one draw of weight 1 each.

        Returns:
            float64 [metrics, draws], in the order of :data:`METRICS`.
        """
        if weights is None:
            weights = np.ones((1, len(self._order)))
        drawn = np.asarray(weights, np.float64)[:, self._order]
        hits = np.cumsum(drawn * self._positive, axis=1)[:, self._ends]
        alarms = np.cumsum(drawn * ~self._positive, axis=1)[:, self._ends]
        positives, negatives = hits[:, -1], alarms[:, -1]
        gained = np.diff(hits, axis=1, prepend=0.0)
        raised = np.diff(alarms, axis=1, prepend=0.0)
        under = (raised * (hits - gained / 2)).sum(axis=1) / (positives * negatives)
        called = hits + alarms
        precision = np.divide(hits, called, out=np.zeros_like(hits), where=called > 0)
        average = (gained * precision).sum(axis=1) / positives
        found = [under, average]
        for fpr in FPRS:
            # 1e-9: a product such as .29 x 100 must not fall below the whole number it stands for.
            allowed = (alarms <= (fpr * negatives + 1e-9)[:, None]).sum(axis=1)
            best = np.take_along_axis(hits, np.maximum(allowed - 1, 0)[:, None], axis=1)[:, 0]
            found.append(np.where(allowed > 0, best, 0.0) / positives)
        return np.stack(found)


def auroc(scores: ArrayLike, labels: ArrayLike) -> float:
    """Area under the ROC curve, ties half; see :class:`Ranked`.

    Args:
        scores: [traces], finite.
        labels: [traces], 1 hallucinated, 0 right.

    Raises:
        InputError: as :class:`Ranked`.

    Examples:
        >>> auroc([0.9, 0.4, 0.4, 0.1], [1, 1, 0, 0])
        0.875
    """
    return float(Ranked(scores, labels).metrics()[0, 0])


def average_precision(scores: ArrayLike, labels: ArrayLike) -> float:
    """Area under the precision-recall curve as average precision; see :class:`Ranked`.

    Args:
        scores: [traces], finite.
        labels: [traces], 1 hallucinated, 0 right.

    Raises:
        InputError: as :class:`Ranked`.

    Examples:
        >>> average_precision([0.9, 0.5, 0.4, 0.1], [1, 0, 1, 0])
        0.8333333333333333
    """
    return float(Ranked(scores, labels).metrics()[1, 0])


def tpr_at(scores: ArrayLike, labels: ArrayLike, fpr: float) -> float:
    """The largest true positive rate of a threshold whose false positive rate is at most that.

    Args:
        scores: [traces].
        labels: [traces], 1 hallucinated, 0 right.
        fpr: false positive rate allowed, from 0 to 1.

    Raises:
        InputError: as :class:`Ranked`.

    Examples:
        >>> tpr_at([0.9, 0.5, 0.4, 0.1], [1, 0, 1, 0], 0.1)
        0.5
    """
    values, truth = _checked(scores, labels)
    right = np.sort(values[truth == 0])[::-1]
    allowed = math.floor(fpr * len(right) + 1e-9)
    # Above this right answer's score lie at most `allowed` right ones.
    bound = right[allowed] if allowed < len(right) else -np.inf
    return float((values[truth == 1] > bound).mean())


def calibration_error(probabilities: ArrayLike, labels: ArrayLike, bins: int = BINS) -> float:
    """Expected calibration error: how far probabilities are from the shares that come true.

    Formula: sum_b n_b / n |share of hallucinated in b - mean probability in b|, over bins of equal
    width; a bin holds its upper edge, the first one 0 too.

    Args:
        probabilities: [traces], from 0 to 1.
        labels: [traces], 1 hallucinated, 0 right.
        bins: how many.

    Raises:
        InputError: probabilities outside 0 to 1, other labels, or lengths that differ.

    Examples:
        >>> calibration_error([0.25, 0.25, 0.75, 0.75], [0, 0, 1, 1])
        0.25

    Source: Guo et al. 2017, On Calibration of Modern Neural Networks, with 15 bins as there (not
    checked against its text).
    """
    values, truth = _checked(probabilities, labels, both=False)
    if values.size and not (values.min() >= 0 and values.max() <= 1):
        raise InputError(
            f"Expected probabilities from 0 to 1, got {values.min():g} to {values.max():g} - "
            "calibrate scores first (Platt)"
        )
    bin_of = np.clip(np.ceil(values * bins).astype(np.int64) - 1, 0, bins - 1)
    gap = np.bincount(bin_of, truth - values, minlength=bins)
    return float(np.abs(gap).sum() / max(len(values), 1))


@dataclass(frozen=True)
class Platt:
    """Scores as probabilities: a logistic curve of one slope and one intercept.

    Two numbers are fitted, so a few hundred validation traces are enough (isotonic regression,
    which fits a step for each, overfits on them). The order of scores stays as it is, or is
    reversed where on the validation part higher scores are safer.

    Attributes:
        slope: per unit of the score.
        intercept: log odds at the score 0.

    Examples:
        >>> curve = Platt.fit([0.0, 1.0, 2.0, 3.0], [0, 0, 1, 1])
        >>> curve([0.0, 3.0]).round(2)
        array([0.2, 0.8])
    """

    slope: float
    intercept: float

    def __call__(self, scores: ArrayLike) -> Array:
        """Probability that each answer is hallucinated, float64 [scores]."""
        odds = self.slope * np.asarray(scores, np.float64) + self.intercept
        return _logistic(odds)

    @classmethod
    def fit(cls, scores: ArrayLike, labels: ArrayLike) -> Platt:
        """Fits the curve on a validation part.

        Targets are (n+ + 1)/(n+ + 2) and 1/(n- + 2) in place of 1 and 0, which keeps the slope
        finite where classes can be told apart wholly.

        Args:
            scores: [traces], finite.
            labels: [traces], 1 hallucinated, 0 right.

        Raises:
            InputError: as :class:`Ranked`.

        Source: Platt 1999, Probabilistic Outputs for Support Vector Machines; solved by Newton's
        method with backtracking, after Lin, Lin and Weng 2007 (neither checked against its text).
        """
        values, truth = _checked(scores, labels)
        risky = int(truth.sum())
        safe = len(truth) - risky
        targets = np.where(truth == 1, (risky + 1) / (risky + 2), 1 / (safe + 2))
        # By a power of two, which rounds nothing: squares of scores near 1e308 would overflow.
        scale = 2.0 ** (int(np.frexp(np.abs(values).max())[1]) - 1)
        values = values / scale
        middle, spread = float(values.mean()), float(values.std()) or 1.0
        design = np.stack([(values - middle) / spread, np.ones_like(values)], axis=1)
        slope, level = _newton(design, targets)
        return cls(float(slope / spread / scale), float(level - slope * middle / spread))


def holm(p_values: Sequence[float]) -> list[float]:
    """P values corrected for their number.

    Formula: of m of them in increasing order, the i-th (from 0) becomes the largest of
    (m - k) p_k over k <= i, at most 1. The chance of any false finding stays below the level.

    Examples:
        >>> holm([0.01, 0.04, 0.03])
        [0.03, 0.06, 0.06]

    Source: Holm 1979, A Simple Sequentially Rejective Multiple Test Procedure.
    """
    corrected, largest = [0.0] * len(p_values), 0.0
    for rank, at in enumerate(np.argsort(p_values, kind="stable").tolist()):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[at]))
        corrected[at] = largest
    return corrected


def _newton(design: Array, targets: Array) -> Array:
    """Coefficients [2] of the least cross-entropy, by Newton's method with backtracking."""
    share = float(targets.mean())
    coefficients = np.array([0.0, math.log(share / (1 - share))])
    loss = _cross_entropy(design @ coefficients, targets)
    for _ in range(_NEWTON_STEPS):
        found = _logistic(design @ coefficients)
        gradient = design.T @ (found - targets)
        if np.abs(gradient).max() < 1e-10 * len(targets):
            break
        curvature = (design.T * (found * (1 - found))) @ design + 1e-12 * np.eye(2)
        step, size = np.linalg.solve(curvature, gradient), 1.0
        while size > 1e-10:
            there = coefficients - size * step
            reached = _cross_entropy(design @ there, targets)
            if reached < loss:
                coefficients, loss = there, reached
                break
            size /= 2
        else:
            break
    return coefficients


def _cross_entropy(odds: Array, targets: Array) -> float:
    return float((np.logaddexp(0.0, odds) - targets * odds).sum())


def _logistic(odds: Array) -> Array:
    return np.exp(-np.logaddexp(0.0, -odds))


def _checked(
    scores: ArrayLike, labels: ArrayLike, both: bool = True
) -> tuple[Array, NDArray[np.int64]]:
    """Scores and labels as arrays that go together."""
    values = np.asarray(scores, np.float64)
    found: NDArray[Any] = np.asarray(labels)
    if values.ndim != 1 or found.shape != values.shape:
        raise InputError(
            f"Expected scores and labels [traces], got {list(values.shape)} and "
            f"{list(found.shape)} - give one of each for every trace"
        )
    if not np.isfinite(values).all():
        raise InputError(
            f"Expected finite scores, got {np.count_nonzero(~np.isfinite(values))} of "
            f"{len(values)} that are not - leave those traces out, or fix the detector"
        )
    if not np.isin(found, (0, 1)).all():
        raise InputError("Expected labels 1 (hallucinated) and 0 (right), got others - map them")
    if both and len(np.unique(found)) < 2:
        raise InputError(
            f"Expected hallucinated and right answers, got {len(found)} of one class - "
            "take more traces or another labelling protocol"
        )
    return values, found.astype(np.int64)
