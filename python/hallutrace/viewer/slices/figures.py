"""Share hallucinated and AUROC within each part of a run, with intervals and corrected tests.

A part is compared with all labelled traces, on the same bootstrap draws of groups: the difference
of the part and of all, divided by its standard deviation over the draws, is taken for a normal
variable, as :func:`hallutrace.detect.evaluation.bootstrap.compare` does for two detectors. P values
are corrected by Holm over all parts of all families, for shares and for AUROC each by itself.

Scores of detectors that were fitted on different parts have no common scale. So a score is
replaced by its rank in its fold: the share of the fold's scores below it, ties half, mean over
seeds. AUROC within a part is that of these ranks over the traces of all folds.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hallutrace.viewer.slices.families import Family
from hallutrace.viewer.slices.intervals import DRAWS, LEVEL, wilson

LEAST_TRACES, LEAST_GROUPS, LEAST_CLASS = 10, 5, 5
"""A part with fewer labelled traces or groups is left out; AUROC takes as many of either class."""

Array = NDArray[np.float64]
_CELLS = 500_000  # weights that are worked on at a time


@dataclass(frozen=True)
class Judged:
    """The labelled traces that figures are of.

    Attributes:
        at: int64 [judged], positions in the run.
        labels: int8 [judged], 1 hallucinated, 0 right.
        groups: of each.
        folds: int64 [judged]; zeros without an evaluation.
        ranks: float64 [judged], rank of the score within the fold; None without an evaluation.
    """

    at: NDArray[np.int64]
    labels: NDArray[np.int8]
    groups: list[str]
    folds: NDArray[np.int64]
    ranks: Array | None


def fold_ranks(series: Array, folds: NDArray[np.int64]) -> Array:
    """The share of the scores of its fold that lie below each score, ties half; mean over seeds.

    Args:
        series: float64 [seeds, traces], finite.
        folds: int64 [traces].

    Returns:
        float64 [traces], above 0 and below 1.

    Examples:
        >>> fold_ranks(np.array([[5.0, 7.0, 0.1, 0.2]]), np.array([0, 0, 1, 1]))
        array([0.25, 0.75, 0.25, 0.75])
    """
    ranks = np.empty(series.shape)
    for number in np.unique(folds):
        inside = np.flatnonzero(folds == number)
        for row, scores in zip(ranks, series, strict=True):
            ordered = np.sort(scores[inside])
            below = np.searchsorted(ordered, scores[inside], "left")
            row[inside] = (below + np.searchsorted(ordered, scores[inside], "right")) / (
                2 * len(inside)
            )
    found: Array = ranks.mean(axis=0)
    return found


def slice_figures(
    found: Sequence[Family], judged: Judged, draws: int = DRAWS, seed: int = 0
) -> dict[str, Any]:
    """Figures of all parts that have enough labelled traces.

    Args:
        found: the families.
        judged: the labelled traces.
        draws: of the bootstrap.
        seed: of the draws.

    Returns:
        Columns, a row for each part: ``family`` int32 (index into ``families``, their names),
        ``part`` int32 (of the family), ``name`` and ``clause`` texts, ``traces``, ``groups`` and
        ``hallucinated`` int32; float64 ``share`` with ``share_low``, ``share_high`` and ``share_p``
        (Holm); float64 ``auroc`` with ``auroc_low``, ``auroc_high``, ``auroc_p``, NaN where a class
        is too small or nothing was scored. ``all``: the same figures of all labelled traces.
        ``left_out``: how many parts were too small.
    """
    from hallutrace.detect.metrics import holm

    masks, names, left_out = _masks(found, judged)
    drawn = _drawn(masks, judged, draws, seed)
    shares = _with_tests(drawn.shares)
    for row, mask in enumerate(masks):
        if shares["value"][row] in (0.0, 1.0):
            count = _groups(judged, mask)
            ends = wilson(shares["value"][row], count)
            shares["low"][row], shares["high"][row] = ends
    aurocs = _with_tests(drawn.aurocs)
    figures: dict[str, Any] = {
        "traces": np.array([mask.sum() for mask in masks], np.int32),
        "groups": np.array([_groups(judged, mask) for mask in masks], np.int32),
        "hallucinated": np.array([judged.labels[mask].sum() for mask in masks], np.int32),
    }
    for name, columns in (("share", shares), ("auroc", aurocs)):
        figures[name] = columns["value"]
        figures[f"{name}_low"], figures[f"{name}_high"] = columns["low"], columns["high"]
    whole = {name: column[0].item() for name, column in figures.items()}
    figures = {name: column[1:] for name, column in figures.items()}
    for name, columns in (("share", shares), ("auroc", aurocs)):
        p, known = columns["p"][1:], np.isfinite(columns["p"][1:])
        p[known] = holm(p[known].tolist())
        figures[f"{name}_p"] = p
    return {
        "families": [one.name for one in found],
        "family": np.array([family for family, _ in names], np.int32),
        "part": np.array([part for _, part in names], np.int32),
        "name": [found[family].parts[part] for family, part in names],
        "clause": [found[family].clauses[part] for family, part in names],
        **figures,
        "all": whole,
        "left_out": left_out,
    }


def _masks(
    found: Sequence[Family], judged: Judged
) -> tuple[list[NDArray[np.bool_]], list[tuple[int, int]], int]:
    """All traces, then each part that is large enough; and how many are not."""
    masks, names, left_out = [np.ones(len(judged.at), bool)], [], 0
    for family, one in enumerate(found):
        of = one.of[judged.at]
        for part in range(len(one.parts)):
            mask = of == part
            if mask.all():
                continue  # all traces are in it
            if mask.sum() >= LEAST_TRACES and _groups(judged, mask) >= LEAST_GROUPS:
                masks.append(mask)
                names.append((family, part))
            elif mask.any():
                left_out += 1
    return masks, names, left_out


def _groups(judged: Judged, mask: NDArray[np.bool_]) -> int:
    return len({judged.groups[at] for at in np.flatnonzero(mask).tolist()})


@dataclass(frozen=True)
class _Drawn:
    """Value and draws of all traces (row 0) and of each part, float64 [1 + parts, 1 + draws]."""

    shares: Array
    aurocs: Array


def _drawn(masks: Sequence[NDArray[np.bool_]], judged: Judged, draws: int, seed: int) -> _Drawn:
    """Figures on the traces as they are (column 0) and on each draw."""
    from hallutrace.detect.evaluation.bootstrap import Resampling

    labels = judged.labels.astype(np.int64)
    resampling = Resampling(labels, judged.groups, judged.folds, draws, seed, both_classes=False)
    inside = np.stack(masks, axis=1).astype(np.float64)
    hits = inside * (labels == 1)[:, None]
    ranked = [_RankedPart.of(mask, judged) for mask in masks]
    shares, aurocs = [], []
    for weights in _blocks(chain([np.ones((1, len(labels)))], resampling.weights())):
        size = weights @ inside
        share = np.divide(weights @ hits, size, out=np.full_like(size, np.nan), where=size > 0)
        shares.append(share)
        # Draws as columns: rows of traces are then copied and summed as wholes, which is quicker.
        by_trace = np.ascontiguousarray(weights.T)
        aurocs.append(np.stack([one.auroc(by_trace) for one in ranked], axis=1))
    return _Drawn(np.concatenate(shares).T, np.concatenate(aurocs).T)


def _blocks(several: Iterable[Array]) -> Iterator[Array]:
    """The same draws, fewer at a time: what is made of them takes some times their memory."""
    for weights in several:
        rows = max(1, _CELLS // max(weights.shape[1], 1))
        yield from (weights[at : at + rows] for at in range(0, len(weights), rows))


@dataclass(frozen=True)
class _RankedPart:
    """The traces of a part in the order of their scores, so that AUROC under weights is cheap.

    Attributes:
        right: int64 [right], in increasing order of their scores.
        risky: int64 [hallucinated].
        below: int64 [hallucinated], how many right ones score less than each.
        not_above: int64 [hallucinated], how many score no more.
    """

    right: NDArray[np.int64]
    risky: NDArray[np.int64]
    below: NDArray[np.int64]
    not_above: NDArray[np.int64]

    @classmethod
    def of(cls, mask: NDArray[np.bool_], judged: Judged) -> _RankedPart | _NoScores:
        """The traces of a mask; no scores where a class is too small."""
        risky = np.flatnonzero(mask & (judged.labels == 1))
        right = np.flatnonzero(mask & (judged.labels == 0))
        if judged.ranks is None or min(len(risky), len(right)) < LEAST_CLASS:
            return _NoScores()
        right = right[np.argsort(judged.ranks[right], kind="stable")]
        ordered = judged.ranks[right]
        return cls(
            right,
            risky,
            np.searchsorted(ordered, judged.ranks[risky], "left"),
            np.searchsorted(ordered, judged.ranks[risky], "right"),
        )

    def auroc(self, weights: Array) -> Array:
        """AUROC for each weighting [judged, draws], ties half; NaN where it lacks a class."""
        right, risky = weights[self.right], weights[self.risky]
        total = np.zeros((len(self.right) + 1, weights.shape[1]))
        np.cumsum(right, axis=0, out=total[1:])
        won = np.einsum("ij,ij->j", risky, total[self.below])
        won += np.einsum("ij,ij->j", risky, total[self.not_above])
        pairs = risky.sum(axis=0) * total[-1]
        found: Array = np.full(len(pairs), np.nan)
        np.divide(won / 2, pairs, out=found, where=pairs > 0)
        return found


class _NoScores:
    """A part whose AUROC is not known."""

    def auroc(self, weights: Array) -> Array:
        """NaN for each weighting."""
        return np.full(weights.shape[1], np.nan)


def _with_tests(rows: Array) -> dict[str, Array]:
    """Values, intervals and plain p values of a figure.

    Args:
        rows: float64 [1 + parts, 1 + draws], row 0 of all traces, column 0 without a draw.
    """
    value, draws = rows[:, 0].copy(), rows[:, 1:]
    low, high, p = (np.full(len(rows), np.nan) for _ in range(3))
    for row, drawn in enumerate(draws):
        good = np.isfinite(drawn)
        if not (math.isfinite(value[row]) and good.sum() > 1):
            continue
        low[row], high[row] = np.quantile(drawn[good], [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        differences = (drawn - draws[0])[good & np.isfinite(draws[0])]
        p[row] = two_sided(value[row] - value[0], float(differences.std(ddof=1)))
    return {"value": value, "low": low, "high": high, "p": p}


def two_sided(difference: float, std: float) -> float:
    """P value of a difference of 0, of a normal variable.

    Examples:
        >>> round(two_sided(1.96, 1.0), 3), two_sided(0.0, 0.0)
        (0.05, 1.0)
    """
    if abs(difference) < 1e-12:
        return 1.0
    return math.erfc(abs(difference) / std / math.sqrt(2)) if std > 0 else 0.0
