"""What an evaluation says: whether anything detects more than the controls, and where it reads it.

:func:`verdict_of` has it as figures, :func:`verdicts` as sentences.
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import numpy as np

from hallutrace.viewer.evaluations.content import EvaluationContent, Interval, PairTest, Row
from hallutrace.viewer.evaluations.files import EvaluationFiles

PROBE = "linear-probe"
_LAYER = re.compile(r"layer (\d+): (?:inner folds|validation) AUROC (\d\.\d+)")


@dataclass(frozen=True)
class Compared:
    """The best detector beside the best control.

    Attributes:
        best: the detector with the largest AUROC that is no control; None if there is none.
        control: the best control; None if none was scored.
        tests: of each detector that is no control against the best control.
        difference: the one of ``best``; None if there is none.
    """

    best: Row | None
    control: Row | None
    tests: list[PairTest]
    difference: PairTest | None


def compared(content: EvaluationContent) -> Compared:
    """The best detector, the best control, and their paired test.

    Args:
        content: of the evaluation.
    """
    ours = [row for row in content.done if not row.is_control and row.edges_control_of is None]
    best = max(ours, key=lambda row: row.reached, default=None)
    control = next((row for row in content.done if row.label == content.best_control), None)
    labels = {row.label for row in ours}
    tests = [test for test in content.against_control if test.one in labels]
    difference = next((test for test in tests if best and test.one == best.label), None)
    return Compared(best, control, tests, difference)


def verdict_of(files: EvaluationFiles) -> dict[str, Any]:
    """The answer to "does anything detect it beyond the controls?".

    Args:
        files: the evaluation.

    Returns:
        ``label``, the protocol; ``counts`` (``traces``, ``groups``, ``hallucinated``, ``right``);
        ``best``: ``label`` and AUROC (``value``, ``low``, ``high``) of the best detector;
        ``control``: the same of the best control; ``difference``: ``value``, ``low``, ``high``,
        ``p``, ``p_corrected`` of best less control; ``above``: labels of the detectors whose AUROC
        is above that of the best control, p after Holm below one less the level of the intervals;
        ``tested``: how many were compared with it, other controls left out; ``edges``: differences
        of graph models and themselves on other edges; ``layers``: see :func:`probe_layers`. Each of
        ``best``, ``control`` and ``difference`` is None where there is none.
    """
    content = files.content
    found = compared(content)
    return {
        "label": content.run.label.name,
        "counts": content.run.counts.model_dump(),
        "best": None if found.best is None else auroc_of(found.best),
        "control": None if found.control is None else auroc_of(found.control),
        "difference": None if found.difference is None else found.difference.model_dump(),
        "above": [test.one for test in found.tests if _is_better(content, test)],
        "tested": len(found.tests),
        "edges": [test.model_dump() for test in content.against_edges],
        "layers": probe_layers(files.json["detectors"]),
    }


def auroc_of(row: Row) -> dict[str, Any]:
    """Label and AUROC of a row: ``label``, ``value``, ``low``, ``high``."""
    return {"label": row.label, **(row.auroc.model_dump() if row.auroc else {})}


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


def verdicts(content: EvaluationContent) -> list[str]:
    """Sentences on the best detector against the best control, and on the edges of graph models.

    Args:
        content: of the evaluation.

    Returns:
        At least one sentence; numbers with their intervals, p after Holm.
    """
    found = []
    if content.protocol.shuffle_labels is not None:
        found.append(
            "Labels were shuffled before this evaluation: it checks the protocol, and every AUROC "
            "should be 0.5."
        )
    found.append(_on_best(content))
    graphs = [row.label for row in content.done if _edge_tests(content, row.label)]
    found += [_on_edges(content, label) for label in graphs]
    return found


def _on_best(content: EvaluationContent) -> str:
    found = compared(content)
    best, control, test = found.best, found.control, found.difference
    if best is None and control is None:
        return "No detector has figures; the table says why."
    if best is None or control is None:
        (only,) = (row for row in (best, control) if row is not None)
        kind = "control" if only is control else "detector"
        return f"The best {kind}, {only.label}, has an AUROC of {interval_text(only.auroc)}."
    begin = (
        f"{best.label} has the largest AUROC of the detectors, {interval_text(best.auroc)}; the "
        f"best control, {control.label}, has {interval_text(control.auroc)}"
    )
    if test is None:
        return f"{begin}."
    return f"{begin}. {_meaning(content, test)}"


def _meaning(content: EvaluationContent, test: PairTest) -> str:
    """A sentence with the difference, and whether it is one."""
    count = len(content.against_control)
    figures = f"{difference_text(test)}, p {p_text(test.p_corrected)} after Holm for {count} tests"
    if not _is_found(content, test):
        return (
            f"That is no difference that these {content.run.counts.traces:,} traces can show "
            f"({figures})."
        )
    word = "better" if test.value > 0 else "worse"
    return f"It is {word} than the control ({figures})."


def _on_edges(content: EvaluationContent, label: str) -> str:
    tests = _edge_tests(content, label)
    parts = [
        f"{difference_text(one)} against {one.other.removeprefix(label).strip()}, "
        f"p {p_text(one.p_corrected)}"
        for one in tests
    ]
    is_better = [_is_better(content, one) for one in tests]
    if all(is_better):
        end = "the edges of attention add something"
    elif any(is_better):
        end = "the edges add something against one control and not against the other"
    else:
        end = "this does not show that the edges of attention add anything"
    return f"{label}, AUROC with its edges less AUROC without: {'; '.join(parts)}: {end}."


def _edge_tests(content: EvaluationContent, label: str) -> list[PairTest]:
    return [one for one in content.against_edges if one.one == label]


def _is_found(content: EvaluationContent, test: PairTest) -> bool:
    return test.p_corrected < 1 - content.protocol.bootstrap.level


def _is_better(content: EvaluationContent, test: PairTest) -> bool:
    return _is_found(content, test) and test.value > 0


def interval_text(interval: Interval | None) -> str:
    """A figure with its interval.

    Examples:
        >>> interval_text(Interval(value=0.81234, low=0.79, high=0.83))
        '0.812 [0.790, 0.830]'
    """
    if interval is None:
        return "-"
    return f"{interval.value:.3f} [{interval.low:.3f}, {interval.high:.3f}]"


def difference_text(interval: Interval) -> str:
    """A difference with its interval.

    Examples:
        >>> difference_text(Interval(value=0.012, low=-0.01, high=0.034))
        '+0.012 [-0.010, +0.034]'
    """
    return f"{interval.value:+.3f} [{interval.low:+.3f}, {interval.high:+.3f}]"


def p_text(p: float) -> str:
    """A p value, not below 0.0001.

    Examples:
        >>> p_text(0.00002), p_text(0.031), p_text(1.0)
        ('<0.0001', '0.031', '1')
    """
    return "<0.0001" if p < 1e-4 else f"{p:.2g}"
