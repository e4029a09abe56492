"""Detectors with their intervals, the best first: a forest plot, the controls among them."""

from __future__ import annotations

from typing import Any

from hallutrace.detect.metrics import METRICS
from hallutrace.errors import InputError
from hallutrace.option_names import parameter
from hallutrace.viewer.evaluations.content import Row
from hallutrace.viewer.figures.drawing import FigureRequest, PaperFigure
from hallutrace.viewer.figures.evaluated import evaluated, whose
from hallutrace.viewer.figures.style import INK, LINE, OTHER, RIGHT, wrapped

_NAMES = {
    "auroc": "AUROC",
    "auprc": "AUPRC",
    "tpr5": "true positive rate at 5% false positives",
    "tpr10": "true positive rate at 10% false positives",
}


def comparison(request: FigureRequest) -> PaperFigure:
    """One metric of all detectors, or of those asked for.

    Args:
        request: run with evaluation, ``label``, ``detectors``, ``metric``.

    Raises:
        NotInRunError: no evaluation, or no such detectors.
        InputError: no such metric, or no detector with figures.
    """
    files, metric = evaluated(request), request.metric
    if metric not in METRICS:
        raise InputError(
            f"Expected one of {', '.join(METRICS)}, got {metric!r} - change {parameter('metric')}"
        )
    content = files.content
    rows = [content.row(label) for label in request.detectors] or content.done
    if not rows:
        raise InputError(f"Expected a detector with figures, got none in {files.folder}")
    rows = sorted(rows, key=lambda row: getattr(row, metric).value)
    tests = {test.one: test.p_corrected for test in content.against_control}
    figures = [getattr(row, metric) for row in rows]
    control = next((row for row in content.done if row.label == content.best_control), None)
    chance = 0.5 if metric == "auroc" else content.run.base_rate if metric == "auprc" else None
    names = [wrapped(row.label, 24) for row in rows]
    lines = [1.2 + name.count("\n") for name in names]
    places = [sum(lines[:number]) + height / 2 for number, height in enumerate(lines)]

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        if chance is not None:
            axes.axvline(chance, color=LINE, linewidth=0.8, zorder=0)
        if control is not None:
            value = getattr(control, metric).value
            axes.axvline(value, color=OTHER, linewidth=0.8, linestyle=(0, (4, 2)), zorder=0)
        for place, row, one in zip(places, rows, figures, strict=True):
            mark, color, face = _mark(row)
            axes.plot([one.low, one.high], [place, place], color=color, linewidth=1.1)
            axes.plot([one.value], [place], mark, color=color, markerfacecolor=face)
        axes.set_yticks(places, names)
        axes.set(ylim=(-0.1, sum(lines) + 0.1), xlabel=_NAMES[metric])
        axes.tick_params(axis="y", length=0)
        _legend(figure, control is not None)

    table = [
        (row.label, _kind(row), one.value, one.low, one.high, tests.get(row.label))
        for row, one in zip(reversed(rows), reversed(figures), strict=True)
    ]
    caption = (
        f"{_NAMES[metric]} with {100 * content.protocol.bootstrap.level:g}% intervals from "
        f"{content.protocol.bootstrap.draws:,} bootstrap draws of groups; {whose(files)}."
        + (f" Broken line: the best control, {content.best_control}." if control else "")
    )
    columns = ("detector", "kind", metric, "low", "high", "p_against_best_control")
    return PaperFigure(caption, columns, table, draw, 1 + 0.16 * sum(lines))


def _kind(row: Row) -> str:
    if row.edges_control_of:
        return "graph without its edges"
    return "control" if row.is_control else "detector"


def _mark(row: Row) -> tuple[str, str, str]:
    """Mark, colour and filling."""
    if row.edges_control_of:
        return "D", OTHER, "white"
    return ("s", INK, "white") if row.is_control else ("o", RIGHT, RIGHT)


def _legend(figure: Any, has_control: bool) -> None:
    from matplotlib.lines import Line2D

    entries = [
        Line2D([], [], color=RIGHT, marker="o", label="detector"),
        Line2D([], [], color=INK, marker="s", markerfacecolor="white", label="control"),
        Line2D([], [], color=OTHER, marker="D", markerfacecolor="white", label="edges changed"),
    ]
    if has_control:
        dashes = (0, (4, 2))
        entries.append(Line2D([], [], color=OTHER, linestyle=dashes, label="best control"))
    figure.legend(handles=entries, loc="outside lower center", ncols=2)
