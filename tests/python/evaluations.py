"""A real evaluation of a small run: rows with two seeds, one that failed and one that is missing.

Every kind of row is in it, so that what shows evaluations is tested with all of them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hallutrace.detect import Scorer, load_examples, register
from hallutrace.detect.evaluation import (
    EvaluationData,
    EvaluationOptions,
    TableRow,
    evaluate,
    table_rows,
    write_report,
)
from hallutrace.detect.registry import REGISTRY
from hallutrace.store.reader import open_run

FAILED, MISSING = "test-failing", "test-not-installed"
REASON = "RuntimeError: <b>no</b> features & nothing"
DETECTORS = "length,perplexity,linear-probe,min-logprob,attention-gnn:epochs=1:hidden_dim=8"


class Failing(Scorer):
    """Fails on each trace."""

    name = FAILED

    def score(self, trace: Any) -> float:
        raise RuntimeError("<b>no</b> features & nothing")


def make_evaluation(run: Path, folder: Path, *, folds: int = 2, label: str = "contains") -> Path:
    """Evaluates a few detectors on a run; returns the folder of the evaluation."""
    register(Failing)
    rows = (*table_rows(DETECTORS), TableRow(FAILED), TableRow(MISSING))
    try:
        options = EvaluationOptions(rows, folds=folds, seeds=2, draws=200)
        data = EvaluationData.of(load_examples(open_run(run), label), folds, 0)
        write_report(evaluate(data, options, folder / "fits"), label, folder)
    finally:
        REGISTRY.remove(FAILED)
    return folder
