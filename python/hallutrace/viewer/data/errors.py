"""Which answers a detector misses, and in which parts of a run it, or the model, does worst."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hallutrace.errors import DamagedError, NotInRunError
from hallutrace.option_names import parameter
from hallutrace.viewer.data.trace_list import UNREADABLE, trace_columns, trace_list
from hallutrace.viewer.evaluations.scores import EvaluationScores, evaluation_scores
from hallutrace.viewer.evaluations.verdict import auroc_of, compared
from hallutrace.viewer.slices.families import Family, families
from hallutrace.viewer.slices.figures import Judged, fold_ranks, slice_figures
from hallutrace.viewer.slices.suggestions import Findings, suggestions
from hallutrace.viewer.viewed_run import ViewedRun

ALARM_SHARE = 0.10
"""An alarm is a score that at most this share of the right answers of its fold exceed."""

LISTED, LISTED_OF_PART = 30, 5  # worst errors of a kind: of the run, and of a part of it
TEXT_CONTROLS = ("length", "question-only")


def errors_data(
    viewed: ViewedRun, *, label: str | None = None, detector: str | None = None
) -> dict[str, Any]:
    """The payload ``errors``.

    Args:
        viewed: the run.
        label: name of a protocol; None for the one of :meth:`ViewedRun.label`.
        detector: label of a detector of the evaluation; None for the best one that is no control.

    Returns:
        - ``label`` and ``labels``, the protocols to choose among; ``detector`` (None without an
          evaluation) and ``detectors`` to choose among; ``trained_on``, the evaluation's protocol.
        - ``alarm_share``; ``counts``: ``traces``, ``judged``, ``hallucinated``, ``right``,
          ``misses``, ``false_alarms``.
        - ``slices``: of :func:`hallutrace.viewer.slices.figures.slice_figures`, with ``misses`` and
          ``false_alarms`` int32 of each part and ``examples``, rows of ``listed``: the worst five
          hallucinated answers of each part, then the worst five right ones.
        - ``listed``: columns of the traces that are named, as in the payload ``traces``, and
          ``rank`` float32 of the score in its fold (NaN none); ``misses`` and ``false_alarms``
          int32, rows of ``listed``, the worst first; without an evaluation ``confident``, the
          hallucinated answers of the highest mean log-probability.
        - ``suggestions``: see :func:`hallutrace.viewer.slices.suggestions.suggestions`;
          ``controls``: ``label``, ``value``, ``low``, ``high`` of those that read text alone;
          ``missing``: sentences.

    Raises:
        NotInRunError: no labels, no such label or detector, or no labelled trace.
        DamagedError: a label file or the evaluation is damaged.
        InputError: the evaluation is of another run.

    Examples:
        >>> found = errors_data(ViewedRun(hallutrace.open(run)))
        >>> found["detector"], found["counts"]["judged"]
        (None, 8)
    """
    protocol = viewed.label(label)
    scored = _scored(viewed, detector)
    judged = _judged(viewed, protocol, scored)
    found, missing = families(viewed)
    figures = slice_figures(found, judged)
    members = part_members(found, figures, judged)
    alarms = {} if scored is None else scored.alarms(judged)
    columns = trace_columns(viewed)
    findings = Findings(
        judged.labels,
        figures,
        members,
        np.array([columns.finish_reasons[at] == "length" for at in judged.at.tolist()], bool),
        None if scored is None else scored.detector,
        alarms,
        ALARM_SHARE,
        [] if scored is None else scored.controls,
    )
    return {
        "label": protocol,
        "labels": viewed.labels,
        "detector": findings.detector,
        "detectors": [] if scored is None else scored.choices,
        "trained_on": None if scored is None else scored.trained_on,
        "alarm_share": ALARM_SHARE,
        "counts": {"traces": len(viewed.store), **_counts(findings)},
        "suggestions": suggestions(findings),
        "controls": list(findings.controls),
        "missing": [*missing, *(_without_scores(viewed) if scored is None else scored.remarks)],
        **_with_examples(viewed, judged, findings),
    }


def _counts(findings: Findings) -> dict[str, int | None]:
    labels, errors = findings.labels, findings.errors
    return {
        "judged": len(labels),
        "hallucinated": int((labels == 1).sum()),
        "right": int((labels == 0).sum()),
        "misses": int(errors["misses"].sum()) if errors else None,
        "false_alarms": int(errors["false alarms"].sum()) if errors else None,
    }


def report_keys(viewed: ViewedRun) -> list[tuple[str, dict[str, str]]]:
    """Names and parameters of what a report carries: the best detector, by each protocol.

    Args:
        viewed: the run.

    Examples:
        >>> report_keys(ViewedRun(hallutrace.open(run)))
        [('errors', {})]
    """
    try:
        others = [name for name in viewed.labels if name != viewed.label(None)]
    except (NotInRunError, DamagedError):
        others = []
    return [("errors", {}), *(("errors", {"label": name}) for name in others)]


@dataclass(frozen=True)
class _Scored:
    """What an evaluation says of its detectors."""

    scores: EvaluationScores
    detector: str
    choices: list[str]
    trained_on: str
    controls: list[dict[str, Any]]
    remarks: list[str]

    def alarms(self, judged: Judged) -> dict[str, NDArray[np.bool_]]:
        """By detector, those with a score for each judged trace."""
        found = {}
        for label in self.choices:
            series = self.scores.series[label][:, judged.at]
            if np.isfinite(series).all():
                found[label] = alarms(fold_ranks(series, judged.folds), judged)
        return found


def _scored(viewed: ViewedRun, detector: str | None) -> _Scored | None:
    """The evaluation that is shown; None if there is none."""
    if viewed.evaluation is None:
        return None
    content = viewed.evaluation_files.content
    scores = evaluation_scores(viewed)
    best = compared(content).best or next(iter(content.done), None)
    if detector is None and best is None:
        raise NotInRunError("This evaluation scored no detector: `hallutrace evaluate` does")
    row = content.row(detector) if detector else best
    assert row is not None
    controls = [auroc_of(one) for one in content.done if one.name in TEXT_CONTROLS]
    choices = [one.label for one in content.done]
    is_shuffled = content.protocol.shuffle_labels is not None
    remark = "This evaluation shuffled its labels: its detectors learnt from no real ones."
    name = content.run.label.name
    return _Scored(scores, row.label, choices, name, controls, [remark] if is_shuffled else [])


def _without_scores(viewed: ViewedRun) -> list[str]:
    return [
        "Misses, false alarms and AUROC within parts take an evaluation: `hallutrace evaluate RUN "
        f"--label {viewed.label(None)}` makes one; give its folder with "
        f"{parameter('evaluation')}."
    ]


def _judged(viewed: ViewedRun, protocol: str, scored: _Scored | None) -> Judged:
    """The traces with a label, a text that can be read, and a score where there are any."""
    columns, labels = trace_columns(viewed), viewed.label_values(protocol)
    chosen = labels >= 0
    chosen &= np.array([reason != UNREADABLE for reason in columns.finish_reasons], bool)
    if scored is not None:
        chosen &= np.isfinite(scored.scores.series[scored.detector]).all(axis=0)
    at = np.flatnonzero(chosen)
    if not len(at):
        raise NotInRunError(
            f"No trace of this run has a label by {protocol}"
            + (f" and a score of {scored.detector}" if scored else "")
            + " - `hallutrace label` makes labels"
        )
    groups = [columns.groups[one] for one in at.tolist()]
    if scored is None:
        return Judged(at, labels[at], groups, np.zeros(len(at), np.int64), None)
    folds = scored.scores.folds[at]
    ranks = fold_ranks(scored.scores.series[scored.detector][:, at], folds)
    return Judged(at, labels[at], groups, folds, ranks)


def alarms(ranks: NDArray[np.float64], judged: Judged) -> NDArray[np.bool_]:
    """Whether each score raises an alarm: it exceeds those of nine in ten right answers.

    In each fold the threshold is the lowest for which at most a tenth of the right answers score
    higher, as for the TPR at 10% FPR of an evaluation.

    Args:
        ranks: float64 [judged], see :func:`hallutrace.viewer.slices.figures.fold_ranks`.
        judged: labels and folds.

    Returns:
        bool [judged].
    """
    found = np.zeros(len(ranks), bool)
    for number in np.unique(judged.folds):
        inside = judged.folds == number
        right = np.sort(ranks[inside & (judged.labels == 0)])[::-1]
        allowed = int(np.floor(ALARM_SHARE * len(right) + 1e-9))
        bound = right[allowed] if allowed < len(right) else -np.inf
        found[inside] = ranks[inside] > bound
    return found


def part_members(
    found: list[Family], figures: Mapping[str, Any], judged: Judged
) -> NDArray[np.bool_]:
    """The traces of each row of the figures, bool [parts, judged]."""
    rows = [
        found[family].of[judged.at] == part
        for family, part in zip(figures["family"], figures["part"], strict=True)
    ]
    return np.stack(rows) if rows else np.zeros((0, len(judged.at)), bool)


def _with_examples(viewed: ViewedRun, judged: Judged, findings: Findings) -> dict[str, Any]:
    """Figures of the parts with examples, and the list of all traces that are named."""
    wrongness = _wrongness(viewed, judged, findings)
    order = np.argsort(-wrongness, kind="stable")
    order = order[np.isfinite(wrongness[order])]
    errors = findings.errors
    lists = {
        name.replace(" ", "_"): order[mask[order]][:LISTED]
        for name, mask in (errors or {"confident": judged.labels == 1}).items()
    }
    worst = [
        np.concatenate(
            [order[(members & (judged.labels == kind))[order]][:LISTED_OF_PART] for kind in (1, 0)]
        )
        for members in findings.members
    ]
    named = np.unique(np.concatenate([*lists.values(), *worst, np.zeros(0, np.int64)]))
    listed = trace_list(viewed, judged.at[named].tolist())
    ranks = np.full(len(judged.at), np.nan) if judged.ranks is None else judged.ranks
    slices = dict(findings.figures)
    for name, mask in errors.items():
        count = (findings.members & mask).sum(axis=1)
        slices[name.replace(" ", "_")] = count.astype(np.int32)
    slices["examples"] = [np.searchsorted(named, rows).astype(np.int32) for rows in worst]
    return {
        "slices": slices,
        "listed": {**listed, "rank": ranks[named].astype(np.float32)},
        **{name: np.searchsorted(named, rows).astype(np.int32) for name, rows in lists.items()},
    }


def _wrongness(viewed: ViewedRun, judged: Judged, findings: Findings) -> NDArray[np.float64]:
    """How far label and score are apart; without scores, how sure a hallucinated answer was."""
    if judged.ranks is not None:
        return np.abs(judged.labels - judged.ranks)
    logprob = trace_columns(viewed).mean_logprob[judged.at].astype(np.float64)
    return np.where(judged.labels == 1, logprob, -np.inf)
