"""Evaluations: a real one of a small run, and one with made-up scores.

The real one has every kind of row (two seeds, failed, missing), so that what shows evaluations is
tested with all of them.
"""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np

from hallutrace.detect import Scorer, load_examples, register
from hallutrace.detect.evaluation import (
    EvaluationData,
    EvaluationOptions,
    TableRow,
    evaluate,
    table_rows,
    write_report,
)
from hallutrace.detect.evaluation.rows import CONTROLS
from hallutrace.detect.registry import REGISTRY
from hallutrace.store import label_files
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


def write_made_up(folder: Path, run: Path, columns: dict[str, np.ndarray], folds: int = 5) -> Path:
    """Writes an evaluation whose scores are given and whose figures mean nothing.

    Args:
        folder: to make.
        run: of the traces; those with a label are tested, trace k in fold k mod ``folds``.
        columns: scores of all traces by name; ``NAME seed=K`` are the series of one detector.
        folds: number of splits.
    """
    store = open_run(run)
    labels = label_files.read(run, "contains")
    tested = [(at, key) for at, key in enumerate(store.keys()) if labels[key] is not None]
    hallucinated = sum(labels[key] or 0 for _, key in tested)
    series: dict[str, list[int]] = {}
    for name in columns:
        label, _, seed = name.partition(" seed=")
        series.setdefault(label, []).append(int(seed or 0))
    figure = {"value": 0.5, "low": 0.4, "high": 0.6}
    content = {
        "schema": 1,
        "run": {
            "name": run.name,
            "fingerprint": store.manifest.fingerprint,
            "traces": "0" * 16,
            "label": {"name": "contains"},
            "counts": {
                "traces": len(tested),
                "groups": len({store[at].group for at, _ in tested}),
                "hallucinated": hallucinated,
                "right": len(tested) - hallucinated,
            },
            "base_rate": hallucinated / len(tested),
        },
        "trained_on": None,
        "protocol": {
            "folds": folds,
            "seeds": max(map(len, series.values())),
            "seeds_on": "all",
            "shuffle_labels": None,
            "bootstrap": {"draws": 200, "level": 0.95},
        },
        "best_control": None,
        "detectors": [
            {
                "label": label,
                "name": label.split()[0],
                "options": {},
                "is_control": label in CONTROLS,
                "edges_control_of": None,
                "status": "done",
                **dict.fromkeys(("auroc", "auprc", "tpr5", "tpr10"), figure),
                "ece": 0.1,
                "auroc_by_fold": [[0.5] * folds for _ in seeds],
                "seeds": [[seed] * folds for seed in seeds],
            }
            for label, seeds in series.items()
        ],
        "against_control": [],
        "against_edges": [],
        "pairs": [],
        "timing": {label: {"fits": 1, "fit_seconds": 1.0, "trace_ms": 1.0} for label in series},
    }
    folder.mkdir()
    (folder / "evaluation.json").write_text(json.dumps(content), "utf-8")
    with (folder / "scores.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "sample", "label", "fold", *columns])
        for at, key in tested:
            found = [repr(float(scores[at])) for scores in columns.values()]
            writer.writerow([*key, labels[key], at % folds, *found])
    return folder
