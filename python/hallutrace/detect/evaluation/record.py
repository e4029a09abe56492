"""Everything about an evaluation, as JSON."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np

from hallutrace.detect.evaluation.comparison import Figures, PairTest
from hallutrace.detect.evaluation.outcomes import basis_of, digest_of
from hallutrace.detect.evaluation.plan import Row
from hallutrace.detect.evaluation.protocol import Evaluation
from hallutrace.detect.examples import Examples
from hallutrace.store.label_files import read_parameters

SCHEMA = 1


def to_json(evaluation: Evaluation, label: str) -> dict[str, Any]:
    """Everything, JSON-able; what a second evaluation gives otherwise is under ``timing``."""
    material, plan = evaluation.material, evaluation.plan
    comparison = evaluation.comparison
    return {
        "schema": SCHEMA,
        "run": _run(material.test, label),
        "learnt_from": _run(material.learn, label) if material.is_transfer else None,
        "shared_groups": material.shared if material.is_transfer else None,
        "versions": evaluation.versions,
        "protocol": {
            "folds": len(material.parts),
            "seeds": plan.seeds,
            "seeds_on": plan.seeds_on,
            "split_seed": plan.split_seed,
            "shuffle_labels": plan.shuffle_labels,
            "bootstrap": {
                "draws": plan.draws,
                "level": plan.level,
                "seed": plan.split_seed,
                "over": ["groups", "seeds"],
            },
            "parts": [
                {name: len(indices) for name, indices in vars(part).items()}
                | {"digest": digest_of(part.train, part.validation, part.test)}
                for part in material.parts
            ],
            "test_fold": material.fold_of.tolist(),
        },
        "best_control": comparison.best_control,
        "detectors": [_detector(evaluation, row) for row in plan.rows],
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
        **basis_of(examples),
        "label": {"name": label, "parameters": read_parameters(store.folder, label)},
        "counts": {
            "traces": len(examples),
            "groups": len(set(examples.groups)),
            "hallucinated": hallucinated,
            "right": len(examples) - hallucinated,
        },
        "base_rate": hallucinated / len(examples),
    }


def _detector(evaluation: Evaluation, row: Row) -> dict[str, Any]:
    found: dict[str, Any] = {
        "label": row.label,
        "name": row.name,
        "options": row.options,
        "is_control": row.is_control,
        "edges_control_of": row.of,
    }
    if row.label in evaluation.missing:
        return found | {"status": "missing", "reason": evaluation.missing[row.label]}
    if row.label in evaluation.failed:
        return found | {"status": "failed", **asdict(evaluation.failed[row.label])}
    scored = evaluation.scored[row.label]
    figures = evaluation.comparison.figures[row.label]
    return found | {
        "status": "done",
        **{name: asdict(interval) for name, interval in figures.intervals.items()},
        "ece": figures.ece,
        "auroc_by_series": figures.by_series,
        "auroc_by_fold": figures.by_fold,
        "auroc_sd_of_series": _spread(figures),
        "seeds": scored.seeds,
        "epochs": scored.epochs,
        "notes": scored.notes,
    }


def _spread(figures: Figures) -> float | None:
    several = len(figures.by_series) > 1
    return float(np.std(figures.by_series, ddof=1)) if several else None


def _test(test: PairTest) -> dict[str, Any]:
    return {
        "one": test.one,
        "other": test.other,
        **asdict(test.difference),
        "p_corrected": test.corrected,
    }
