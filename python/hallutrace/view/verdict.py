"""What an evaluation says in short: whether anything detects more than the controls, and where."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import numpy as np

from hallutrace.errors import DamagedError

LEVEL = 0.05
"""Of a test, after Holm's correction."""

_LAYER = re.compile(r"layer (\d+): (?:inner folds|validation) AUROC (\d\.\d+)")


def verdict_of(evaluation: Mapping[str, Any]) -> dict[str, Any]:
    """The answer to "does anything detect it beyond the controls?".

    Args:
        evaluation: what ``evaluation.json`` holds.

    Returns:
        ``label``, the protocol; ``counts`` and ``base_rate`` of the traces; ``level`` of the
        intervals; ``best``: ``label`` and AUROC (``value``, ``low``, ``high``) of the detector
        with the largest AUROC that is no control; ``control``: the same of the best control;
        ``difference``: ``value``, ``low``, ``high``, ``p``, ``p_corrected`` of best less control;
        ``above``: labels of the detectors whose AUROC is above that of the best control, p below
        .05 after Holm; ``tested``: how many were compared with it, other controls left out;
        ``edges``: the differences of graph models and themselves without their edges;
        ``layers``: ``layer`` and ``auroc`` of the linear probe on validation parts, mean over
        folds. Each of ``best``, ``control`` and ``difference`` is None where there is none.

    Raises:
        DamagedError: a field is missing.
    """
    try:
        return _verdict(evaluation)
    except (KeyError, TypeError, IndexError) as error:
        raise DamagedError(
            f"Expected an evaluation, got one with {type(error).__name__} {error} - evaluate again"
        ) from None


def _verdict(evaluation: Mapping[str, Any]) -> dict[str, Any]:
    done = {one["label"]: one for one in evaluation["detectors"] if one["status"] == "done"}
    ours = [
        one for one in done.values() if not one["is_control"] and one["edges_control_of"] is None
    ]
    best = max(ours, key=lambda one: one["auroc"]["value"], default=None)
    names = {one["label"] for one in ours}
    tests = [one for one in evaluation["against_control"] if one["one"] in names]
    control = evaluation["best_control"]
    return {
        "label": evaluation["run"]["label"]["name"],
        "counts": evaluation["run"]["counts"],
        "base_rate": evaluation["run"]["base_rate"],
        "level": evaluation["protocol"]["bootstrap"]["level"],
        "best": None if best is None else _auroc(best),
        "control": None if control is None else _auroc(done[control]),
        "difference": next((one for one in tests if best and one["one"] == best["label"]), None),
        "above": [one["one"] for one in tests if one["value"] > 0 and one["p_corrected"] < LEVEL],
        "tested": len(tests),
        "edges": evaluation["against_edges"],
        "layers": probe_layers(done.values()),
    }


def _auroc(row: Mapping[str, Any]) -> dict[str, Any]:
    return {"label": row["label"], **row["auroc"]}


def probe_layers(rows: Any) -> list[dict[str, Any]]:
    """What the linear probe reached in each layer, from the notes of its fits.

    Args:
        rows: ``detectors`` of an evaluation.

    Returns:
        ``layer`` and ``auroc``, mean over folds, by layer; empty where no probe chose a layer.

    Examples:
        >>> notes = [[["layer 0: validation AUROC 0.5000", "layer 1: validation AUROC 0.7000"]]]
        >>> probe_layers([{"name": "linear-probe", "notes": notes}])[1]
        {'layer': 1, 'auroc': 0.7}
    """
    probe = next((one for one in rows if one["name"] == "linear-probe"), None)
    reached: dict[int, list[float]] = defaultdict(list)
    for series in probe["notes"] if probe else []:
        for fit in series:
            for note in fit:
                if found := _LAYER.match(note):
                    reached[int(found[1])].append(float(found[2]))
    return [
        {"layer": layer, "auroc": float(np.mean(found))} for layer, found in sorted(reached.items())
    ]
