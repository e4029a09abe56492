"""The table of an evaluation, with the curves behind it.

Scores are out of fold, mean over seeds. The table's figures are means over folds and seeds of what
each reaches; the curves are of all traces together, so their areas may differ a little from it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from hallutrace.detect.metrics import METRICS, Ranked
from hallutrace.viewer.evaluations.content import EvaluationContent, PairTest, Row
from hallutrace.viewer.evaluations.curves import calibration, cuts, histogram, risks
from hallutrace.viewer.evaluations.files import ScoreTable
from hallutrace.viewer.evaluations.scores import EvaluationScores, evaluation_scores
from hallutrace.viewer.evaluations.verdict import verdicts
from hallutrace.viewer.viewed_run import NO_LABEL, ViewedRun

_FIGURES = ("auroc", "auprc", "tpr5", "tpr10")


def detectors_data(viewed: ViewedRun) -> dict[str, Any]:
    """All figures of the evaluation that is shown.

    Returns:
        - ``about``: ``run``, ``label``, ``traces``, ``groups``, ``hallucinated``, ``right``,
          ``base_rate``, ``level`` and ``draws`` (of the intervals), ``folds``, ``seeds`` (the most
          that a row has), ``shuffled``, ``trained_on`` (a run's name, of a transfer),
          ``relabelled`` (traces whose label is another one now; None where that cannot be said).
        - ``verdicts``: sentences.
        - ``rows``: in the table's order; ``label``, ``status``, ``reason``, ``is_control``,
          ``control_of``, ``auroc``, ``auprc``, ``tpr5``, ``tpr10`` ({value, low, high}), ``ece``,
          ``by_fold`` (AUROC), ``seeds``, ``fit_seconds``, ``trace_ms``, ``against``
          (difference from the best control, its interval and p).
        - ``best_control``: label of a row, or None.
        - ``pairs``, ``edges``: tests; ``one`` and ``other`` (numbers of rows), ``value``, ``low``,
          ``high``, ``p`` (corrected), float64 [tests].
        - ``curves``: by label of a row; ``thresholds``, ``hits``, ``alarms``, ``presets`` (see
          :class:`hallutrace.viewer.evaluations.curves.Cuts`), ``auroc`` and ``auprc`` of all traces
          together, ``histogram``, and ``calibration`` (None in evaluations that did not write
          their curves).

    Raises:
        NotInRunError: no evaluation is shown.
        InputError: it is one of another run.
        DamagedError: it is damaged.
    """
    scores = evaluation_scores(viewed)
    content, table = viewed.evaluation_files.content, viewed.evaluation_files.scores
    return {
        "about": {**_about(content), "relabelled": _relabelled(viewed, content, scores)},
        "verdicts": verdicts(content),
        "rows": [_row(content, row) for row in content.detectors],
        "best_control": content.best_control,
        "pairs": _tests(content, content.pairs),
        "edges": _tests(content, content.against_edges),
        "curves": {row.label: _curves(row, table) for row in content.done},
    }


def _about(content: EvaluationContent) -> dict[str, Any]:
    run, protocol = content.run, content.protocol
    return {
        "run": run.name,
        "label": run.label.name,
        **run.counts.model_dump(),
        "base_rate": run.base_rate,
        "level": protocol.bootstrap.level,
        "draws": protocol.bootstrap.draws,
        "folds": protocol.folds,
        "seeds": max((len(row.seeds) for row in content.done), default=0),
        "shuffled": protocol.shuffle_labels is not None,
        "trained_on": content.trained_on and content.trained_on.name,
    }


def _relabelled(
    viewed: ViewedRun, content: EvaluationContent, scores: EvaluationScores
) -> int | None:
    """Traces of which the run has another label now than the evaluation had."""
    if content.protocol.shuffle_labels is not None or content.run.label.name not in viewed.labels:
        return None
    now = viewed.label_values(content.run.label.name)
    return int(((scores.labels != now) & (scores.labels != NO_LABEL)).sum())


def _row(content: EvaluationContent, row: Row) -> dict[str, Any]:
    found: dict[str, Any] = {
        "label": row.label,
        "status": row.status,
        "reason": row.reason,
        "is_control": row.is_control,
        "control_of": row.edges_control_of,
    }
    if row.status != "done":
        return found
    timing = content.timing[row.label]
    test = next((one for one in content.against_control if one.one == row.label), None)
    return found | {
        **{name: getattr(row, name).model_dump() for name in _FIGURES},
        "ece": row.ece,
        "by_fold": row.auroc_by_fold,
        "seeds": len(row.seeds),
        "fit_seconds": timing.fit_seconds,
        "trace_ms": timing.trace_ms,
        "against": test and {"p": test.p_corrected, **_interval(test)},
    }


def _interval(test: PairTest) -> dict[str, float]:
    return {"value": test.value, "low": test.low, "high": test.high}


def _tests(content: EvaluationContent, tests: list[PairTest]) -> dict[str, Any]:
    number = {row.label: at for at, row in enumerate(content.detectors)}
    figures = {
        "value": [one.value for one in tests],
        "low": [one.low for one in tests],
        "high": [one.high for one in tests],
        "p": [one.p_corrected for one in tests],
    }
    return {
        "one": np.array([number[one.one] for one in tests], np.uint16),
        "other": np.array([number[one.other] for one in tests], np.uint16),
        **{name: np.array(values, np.float64) for name, values in figures.items()},
    }


def _curves(row: Row, table: ScoreTable) -> dict[str, Any]:
    scores = table.mean(row.label).astype(np.float32)
    found = cuts(scores, table.labels)
    pooled = dict(zip(METRICS, Ranked(scores, table.labels).metrics()[:, 0].tolist(), strict=True))
    reliability = None
    if row.calibration is not None:
        probabilities = risks(table.series[row.label], table.folds, row.calibration)
        reliability = calibration(probabilities, table.labels)
    return {
        **vars(found),
        "auroc": pooled["auroc"],
        "auprc": pooled["auprc"],
        "histogram": histogram(scores, table.labels),
        "calibration": reliability,
    }
