"""An evaluation as JSON, with everything that is known of it."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np

from hallutrace.detect.evaluation.comparison import PairTest
from hallutrace.detect.evaluation.fit_cache import index_digest, run_digest
from hallutrace.detect.evaluation.protocol import Evaluation
from hallutrace.detect.evaluation.rows import TableRow
from hallutrace.detect.examples import Examples
from hallutrace.store.label_files import read_parameters

SCHEMA = 1


def to_json(evaluation: Evaluation, label: str) -> dict[str, Any]:
    """Everything, JSON-able; only ``timing`` differs in a second evaluation."""
    data, options = evaluation.data, evaluation.options
    comparison = evaluation.comparison
    return {
        "schema": SCHEMA,
        "run": _run(data.test_run, label),
        "trained_on": _run(data.train_run, label) if data.is_transfer else None,
        "shared_groups": data.shared_groups if data.is_transfer else None,
        "versions": evaluation.versions,
        "protocol": {
            "folds": len(data.splits),
            "seeds": options.seeds,
            "seeds_on": options.seeds_on,
            "split_seed": options.split_seed,
            "shuffle_labels": options.shuffle_labels,
            "bootstrap": {
                "draws": options.draws,
                "level": options.level,
                "seed": options.split_seed,
                "over": ["groups", "seeds"],
            },
            "parts": [
                {name: len(indices) for name, indices in vars(split).items()}
                | {"digest": index_digest(*vars(split).values())}
                for split in data.splits
            ],
            "test_fold": data.fold_of.tolist(),
        },
        "best_control": comparison.best_control,
        "detectors": [_detector(evaluation, row) for row in options.rows],
        "against_control": [_test(test) for test in comparison.against_control],
        "against_edges": [_test(test) for test in comparison.against_edges],
        "pairs": [_test(test) for test in comparison.pairs],
        "timing": {name: asdict(timing) for name, timing in evaluation.timing.items()},
    }


def _run(examples: Examples, label: str) -> dict[str, Any]:
    store = examples.store
    hallucinated = int(np.asarray(examples.labels).sum())
    return {
        "name": store.folder.resolve().name,
        "model": store.manifest.identity["model"],
        **run_digest(examples),
        "label": {"name": label, "parameters": read_parameters(store.folder, label)},
        "counts": {
            "traces": len(examples),
            "groups": len(set(examples.groups)),
            "hallucinated": hallucinated,
            "right": len(examples) - hallucinated,
        },
        "base_rate": hallucinated / len(examples),
    }


def _detector(evaluation: Evaluation, row: TableRow) -> dict[str, Any]:
    found: dict[str, Any] = {
        "label": row.label,
        "name": row.name,
        "options": row.options,
        "is_control": row.is_control,
        "edges_control_of": row.control_of,
    }
    if row.label in evaluation.missing:
        return found | {"status": "missing", "reason": evaluation.missing[row.label]}
    if row.label in evaluation.failed:
        return found | {"status": "failed", **asdict(evaluation.failed[row.label])}
    scores, metrics = evaluation.scores[row.label], evaluation.comparison.metrics[row.label]
    has_several = len(metrics.by_series) > 1
    return found | {
        "status": "done",
        **{name: asdict(interval) for name, interval in metrics.intervals.items()},
        "ece": metrics.ece,
        "calibration": scores.calibration,
        "auroc_by_series": metrics.by_series,
        "auroc_by_fold": metrics.by_fold,
        "auroc_sd_of_series": float(np.std(metrics.by_series, ddof=1)) if has_several else None,
        "seeds": scores.seeds,
        "epochs": scores.epochs,
        "notes": scores.notes,
    }


def _test(test: PairTest) -> dict[str, Any]:
    return {
        "one": test.one,
        "other": test.other,
        **asdict(test.difference),
        "p_corrected": test.corrected,
    }
