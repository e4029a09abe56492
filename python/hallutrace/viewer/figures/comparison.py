"""Detectors with their intervals, the best first: a forest plot, the controls among them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hallutrace.detect.metrics import METRICS
from hallutrace.errors import InputError
from hallutrace.option_names import parameter
from hallutrace.viewer.evaluations.content import Row
from hallutrace.viewer.evaluations.verdict import compared
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
    control = compared(content).control
    chance = 0.5 if metric == "auroc" else content.run.base_rate if metric == "auprc" else None
    forest = _Forest(rows, metric, control, chance)
    table = [
        (row.label, _kind(row), one.value, one.low, one.high, tests.get(row.label))
        for row in reversed(rows)
        for one in [getattr(row, metric)]
    ]
    caption = (
        f"{_NAMES[metric]} with {100 * content.protocol.bootstrap.level:g}% intervals from "
        f"{content.protocol.bootstrap.draws:,} bootstrap draws of groups; {whose(files)}."
        + (f" Broken line: the best control, {content.best_control}." if control else "")
    )
    columns = ("detector", "kind", metric, "low", "high", "p_against_best_control")
    return PaperFigure(caption, columns, table, forest.draw, 1 + 0.16 * sum(forest.heights))


@dataclass(frozen=True)
class _Forest:
    """Rows from the bottom, with the value of the best control and that of chance as lines."""

    rows: list[Row]
    metric: str
    control: Row | None
    chance: float | None

    @property
    def names(self) -> list[str]:
        return [wrapped(row.label, 24) for row in self.rows]

    @property
    def heights(self) -> list[float]:
        """Of each row, in lines of text."""
        return [1.2 + name.count("\n") for name in self.names]

    def draw(self, figure: Any) -> None:
        axes, heights = figure.subplots(), self.heights
        places = [sum(heights[:number]) + height / 2 for number, height in enumerate(heights)]
        if self.chance is not None:
            axes.axvline(self.chance, color=LINE, linewidth=0.8, zorder=0)
        if self.control is not None:
            value = getattr(self.control, self.metric).value
            axes.axvline(value, color=OTHER, linewidth=0.8, linestyle=(0, (4, 2)), zorder=0)
        for place, row in zip(places, self.rows, strict=True):
            (mark, color, face), one = _mark(row), getattr(row, self.metric)
            axes.plot([one.low, one.high], [place, place], color=color, linewidth=1.1)
            axes.plot([one.value], [place], mark, color=color, markerfacecolor=face)
        axes.set_yticks(places, self.names)
        axes.set(ylim=(-0.1, sum(heights) + 0.1), xlabel=_NAMES[self.metric])
        axes.tick_params(axis="y", length=0)
        _legend(figure, self.control is not None)


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
