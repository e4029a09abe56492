"""ROC curves of detectors, mean over folds and seeds: each area is the AUROC of the table."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hallutrace.viewer.figures.drawing import FigureRequest, PaperFigure
from hallutrace.viewer.figures.evaluated import chosen_rows, evaluated, whose
from hallutrace.viewer.figures.style import LINE, line_style, wrapped

Array = NDArray[np.float64]

_MOST_RATES = 1000  # false-alarm rates of a curve; of more, so many are kept


def roc(request: FigureRequest) -> PaperFigure:
    """The mean ROC curves of some detectors.

    Args:
        request: run with evaluation, ``label``, ``detectors``.

    Raises:
        NotInRunError: no evaluation, or no such detectors.
    """
    files = evaluated(request)
    rows, table = chosen_rows(request, files), files.scores
    curves = {
        row.label: mean_roc(table.series[row.label], table.labels, table.folds) for row in rows
    }

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        axes.plot([0, 1], [0, 1], color=LINE, linewidth=0.8)
        for number, row in enumerate(rows):
            rates, hits = curves[row.label]
            assert row.auroc is not None
            interval = f"{row.auroc.value:.3f} [{row.auroc.low:.3f}, {row.auroc.high:.3f}]"
            style = {**line_style(number), "markevery": (0.08 * number / len(rows) + 0.05, 0.25)}
            axes.plot(rates, hits, label=wrapped(f"{row.label} {interval}"), **style)
        axes.set(xlim=(0, 1), ylim=(0, 1.005), xlabel="false positive rate")
        axes.set_ylabel("true positive rate")
        axes.set_box_aspect(1)
        figure.legend(loc="outside lower center", title="AUROC", title_fontsize=8)

    points = [
        (label, rate, hit)
        for label, (rates, hits) in curves.items()
        for rate, hit in zip(rates, hits, strict=True)
    ]
    caption = (
        f"ROC curves, mean over {files.content.protocol.folds} folds and all seeds; AUROC with "
        f"{100 * files.content.protocol.bootstrap.level:g}% intervals; {whose(files)}."
    )
    height = 3.3 + 0.19 * len(rows)
    return PaperFigure(caption, ("detector", "fpr", "tpr"), points, draw, height)


def mean_roc(series: Array, labels: NDArray[np.int8], folds: NDArray[Any]) -> tuple[Array, Array]:
    """The mean of the ROC curves of each seed in each fold, at each false positive rate.

    Args:
        series: float64 [seeds, traces].
        labels: [traces], 1 hallucinated, 0 right; both in each fold.
        folds: [traces].

    Returns:
        False positive rates, increasing, and true positive rates, float64 [points]. Where the curve
        rises at one rate there are two points. The area under straight lines between them is the
        mean of the AUROCs, unless there were more than 1,000 rates.

    Examples:
        >>> series, labels = np.array([[0.9, 0.5, 0.4, 0.1]]), np.int8([1, 0, 1, 0])
        >>> rates, hits = mean_roc(series, labels, np.zeros(4))
        >>> rates.tolist(), hits.tolist()
        ([0.0, 0.0, 0.5, 0.5, 1.0], [0.0, 0.5, 0.5, 1.0, 1.0])
    """
    curves = [
        _curve(scores[folds == fold], labels[folds == fold])
        for scores in series
        for fold in np.unique(folds)
    ]
    rates = np.unique(np.concatenate([rate for rate, _ in curves]))
    if len(rates) > _MOST_RATES:
        rates = rates[np.unique(np.linspace(0, len(rates) - 1, _MOST_RATES).astype(np.int64))]
    below = np.mean([_at(rates, *curve, "left") for curve in curves], axis=0)
    above = np.mean([_at(rates, *curve, "right") for curve in curves], axis=0)
    points = np.stack([np.repeat(rates, 2), np.stack([below, above], axis=1).ravel()])
    is_new = np.append(True, (np.diff(points, axis=1) != 0).any(axis=0))
    return points[0, is_new], points[1, is_new]


def _curve(scores: Array, labels: NDArray[np.int8]) -> tuple[Array, Array]:
    """False and true positive rates at each threshold, from 0, 0 to 1, 1."""
    order = np.argsort(-scores, kind="stable")
    ordered = scores[order]
    ends = np.append(np.flatnonzero(ordered[1:] != ordered[:-1]), len(ordered) - 1)
    counts = [np.append(0, np.cumsum(labels[order] == one)[ends]) for one in (0, 1)]
    return counts[0] / counts[0][-1], counts[1] / counts[1][-1]


def _at(rates: Array, false: Array, true: Array, side: Any) -> Array:
    """Height of a curve at some rates; where it rises at a rate, its foot (left) or top (right)."""
    at = np.searchsorted(false, rates, "left" if side == "left" else "right")
    at = at if side == "left" else at - 1
    exact = false[at] == rates
    before = np.maximum(np.searchsorted(false, rates, "left") - 1, 0)
    after = np.minimum(before + 1, len(false) - 1)
    width = np.where(false[after] > false[before], false[after] - false[before], 1)
    between = true[before] + (true[after] - true[before]) * (rates - false[before]) / width
    return np.asarray(np.where(exact, true[at], between))
