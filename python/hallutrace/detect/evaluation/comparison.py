"""From scores to a table: metrics with intervals, calibration, and tests between detectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from hallutrace.detect.evaluation.bootstrap import (
    BootstrapMetrics,
    Difference,
    Interval,
    Resampling,
    bootstrap,
    compare,
)
from hallutrace.detect.evaluation.data import EvaluationData
from hallutrace.detect.evaluation.fit_cache import FitResult
from hallutrace.detect.evaluation.options import EvaluationOptions
from hallutrace.detect.metrics import METRICS, Array, Platt, calibration_error, holm


@dataclass(frozen=True)
class RowScores:
    """The scores of one row on the test traces.

    Attributes:
        seeds: of each fold, for each series; [series][folds].
        scores: float64 [series, test traces].
        risks: float64 [series, test traces], the scores as probabilities, by a Platt curve fitted
            on the validation part of each fold.
        calibration: slope and intercept of that curve, [series][folds].
        epochs: of each fit, [series][folds]; 0 where it is not trained in epochs.
        notes: of each fit, [series][folds].
    """

    seeds: list[list[int]]
    scores: Array
    risks: Array
    calibration: list[list[tuple[float, float]]]
    epochs: list[list[int]]
    notes: list[list[tuple[str, ...]]]

    @classmethod
    def of(
        cls,
        seeds: list[list[int]],
        results: Mapping[tuple[int, int], FitResult],
        data: EvaluationData,
    ) -> RowScores:
        """Puts the folds together.

        Args:
            seeds: of each fold, for each series.
            results: by fold and seed.
            data: the traces.
        """
        shape = (len(seeds), len(data.test_run))
        scores, risks = np.full(shape, np.nan), np.full(shape, np.nan)
        calibration: list[list[tuple[float, float]]] = [[] for _ in seeds]
        for series, of_fold in enumerate(seeds):
            for fold, seed in enumerate(of_fold):
                result, split = results[fold, seed], data.splits[fold]
                curve = Platt.fit(result.validation, data.train_run.labels[split.validation])
                scores[series, split.test] = result.test
                risks[series, split.test] = curve(result.test)
                calibration[series].append((curve.slope, curve.intercept))
        fits = [[results[fold, seed] for fold, seed in enumerate(of_fold)] for of_fold in seeds]
        return cls(
            seeds,
            scores,
            risks,
            calibration,
            [[fit.epochs for fit in of_fold] for of_fold in fits],
            [[fit.notes for fit in of_fold] for of_fold in fits],
        )


@dataclass(frozen=True)
class PairTest:
    """Whether two detectors differ in AUROC.

    Attributes:
        one: label of a row.
        other: label of the row that it is compared with.
        difference: AUROC of one less that of the other.
        corrected: p, corrected by Holm for the tests of its family.
    """

    one: str
    other: str
    difference: Difference
    corrected: float


@dataclass(frozen=True)
class RowMetrics:
    """What one row reaches.

    Attributes:
        intervals: of each metric, by its name.
        ece: expected calibration error of the risks, mean over series.
        by_series: AUROC of each series, mean over folds.
        by_fold: AUROC, [series][folds].
    """

    intervals: dict[str, Interval]
    ece: float
    by_series: list[float]
    by_fold: list[list[float]]

    @classmethod
    def of(
        cls, drawn: BootstrapMetrics, risks: Array, labels: NDArray[np.int8], level: float
    ) -> RowMetrics:
        """Metrics of a row, from its bootstrap and its risks."""
        by_fold = drawn.by_fold[:, METRICS.index("auroc")]
        return cls(
            intervals={name: drawn.interval(name, level) for name in METRICS},
            ece=float(np.mean([calibration_error(series, labels) for series in risks])),
            by_series=by_fold.mean(axis=1).tolist(),
            by_fold=by_fold.tolist(),
        )


@dataclass(frozen=True)
class Comparison:
    """All figures of a table.

    Attributes:
        metrics: by label of the row.
        best_control: label of the control with the largest AUROC; None where none was scored.
        against_control: each other row against it, corrected for their number.
        against_edges: each graph model against itself on shuffled edges and on none, corrected for
            their number.
        pairs: every row against every other, corrected for their number.
    """

    metrics: dict[str, RowMetrics]
    best_control: str | None
    against_control: list[PairTest]
    against_edges: list[PairTest]
    pairs: list[PairTest]


def compare_rows(
    options: EvaluationOptions, scores: Mapping[str, RowScores], data: EvaluationData
) -> Comparison:
    """Computes the figures of a table.

    Args:
        options: rows, level, draws and seed.
        scores: by label of the row; rows without are left out.
        data: the traces.
    """
    labels, level = data.test_run.labels, options.level
    groups, seed = data.test_run.groups, options.split_seed
    resampling = Resampling(labels, groups, data.fold_of, options.draws, seed)
    drawn = bootstrap({label: list(one.scores) for label, one in scores.items()}, resampling)
    rows = [row for row in options.rows if row.label in scores]
    controls = [row.label for row in rows if row.is_control]
    best = max(controls, key=lambda label: drawn[label].values[0], default=None)
    others = [(row.label, best) for row in rows if best and row.label != best]
    edges = [(row.control_of, row.label) for row in rows if row.control_of in scores]
    pairs = list(combinations([row.label for row in rows], 2))
    return Comparison(
        metrics={
            label: RowMetrics.of(drawn[label], one.risks, labels, level)
            for label, one in scores.items()
        },
        best_control=best,
        against_control=_tests(others, drawn, level),
        against_edges=_tests([(model, one) for model, one in edges if model], drawn, level),
        pairs=_tests(pairs, drawn, level),
    )


def _tests(
    pairs: Sequence[tuple[str, str]], drawn: Mapping[str, BootstrapMetrics], level: float
) -> list[PairTest]:
    found = [compare(drawn[one], drawn[other], level) for one, other in pairs]
    corrected = holm([difference.p for difference in found])
    return [
        PairTest(one, other, difference, p)
        for (one, other), difference, p in zip(pairs, found, corrected, strict=True)
    ]
