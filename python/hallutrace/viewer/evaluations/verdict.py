"""What an evaluation says in short: whether anything detects more than the controls, and where."""

from __future__ import annotations

import re
from collections import defaultdict
from typing import Any

import numpy as np

from hallutrace.viewer.evaluations.content import EvaluationContent, Row
from hallutrace.viewer.evaluations.files import EvaluationFiles

LEVEL = 0.05
"""Of a test, after Holm's correction."""

PROBE = "linear-probe"
_LAYER = re.compile(r"layer (\d+): (?:inner folds|validation) AUROC (\d\.\d+)")


def best_row(content: EvaluationContent) -> Row | None:
    """The detector with the largest AUROC that is no control; None if there is none.

    Args:
        content: of the evaluation.
    """
    ours = [row for row in content.done if not row.is_control and row.edges_control_of is None]
    return max(ours, key=_reached, default=None)


def verdict_of(files: EvaluationFiles) -> dict[str, Any]:
    """The answer to "does anything detect it beyond the controls?".

    Args:
        files: the evaluation.

    Returns:
        ``label``, the protocol; ``counts`` (``traces``, ``groups``, ``hallucinated``, ``right``);
        ``best``: ``label`` and AUROC (``value``, ``low``, ``high``) of :func:`best_row`;
        ``control``: the same of the best control; ``difference``: ``value``, ``low``, ``high``,
        ``p``, ``p_corrected`` of best less control; ``above``: labels of the detectors whose AUROC
        is above that of the best control, p below .05 after Holm; ``tested``: how many were
        compared with it, other controls left out; ``edges``: differences of graph models and
        themselves on other edges; ``layers``: see :func:`probe_layers`. Each of ``best``,
        ``control`` and ``difference`` is None where there is none.
    """
    content = files.content
    best = best_row(content)
    control = next((row for row in content.done if row.label == content.best_control), None)
    ours = {row.label for row in content.done if not row.is_control and not row.edges_control_of}
    tests = [test for test in content.against_control if test.one in ours]
    difference = next((test for test in tests if best and test.one == best.label), None)
    return {
        "label": content.run.label.name,
        "counts": content.run.counts.model_dump(),
        "best": None if best is None else auroc_of(best),
        "control": None if control is None else auroc_of(control),
        "difference": None if difference is None else difference.model_dump(),
        "above": [test.one for test in tests if test.value > 0 and test.p_corrected < LEVEL],
        "tested": len(tests),
        "edges": [test.model_dump() for test in content.against_edges],
        "layers": probe_layers(files.json["detectors"]),
    }


def auroc_of(row: Row) -> dict[str, Any]:
    """Label and AUROC of a row: ``label``, ``value``, ``low``, ``high``."""
    return {"label": row.label, **(row.auroc.model_dump() if row.auroc else {})}


def _reached(row: Row) -> float:
    return row.auroc.value if row.auroc else 0.0


def probe_layers(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What the linear probe reached in each layer, from the notes of its fits.

    Args:
        rows: ``detectors`` of an evaluation.

    Returns:
        ``layer`` and ``auroc`` on validation parts, mean over folds, by layer; empty where no probe
        chose a layer.

    Examples:
        >>> notes = [[["layer 0: validation AUROC 0.5000", "layer 1: validation AUROC 0.7000"]]]
        >>> probe_layers([{"name": "linear-probe", "notes": notes}])[1]
        {'layer': 1, 'auroc': 0.7}
    """
    notes: Any = next((row.get("notes") for row in rows if row["name"] == PROBE), None)
    reached: dict[int, list[float]] = defaultdict(list)
    for series in notes or []:
        for note in (note for fit in series for note in fit):
            if found := _LAYER.match(str(note)):
                reached[int(found[1])].append(float(found[2]))
    return [
        {"layer": layer, "auroc": float(np.mean(found))} for layer, found in sorted(reached.items())
    ]
