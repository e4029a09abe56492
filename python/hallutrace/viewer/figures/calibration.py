"""Reliability of risks: in each bin of probabilities, the share that was hallucinated."""

from __future__ import annotations

from typing import Any

import numpy as np

from hallutrace.errors import NotInRunError
from hallutrace.option_names import wording
from hallutrace.viewer.evaluations.content import Row
from hallutrace.viewer.evaluations.curves import calibration as reliability
from hallutrace.viewer.evaluations.curves import risks
from hallutrace.viewer.figures.drawing import FigureRequest, PaperFigure
from hallutrace.viewer.figures.evaluated import chosen_rows, evaluated, whose
from hallutrace.viewer.figures.style import LINE, line_style, wrapped


def calibration(request: FigureRequest) -> PaperFigure:
    """Risks of some detectors against what came true.

    Args:
        request: run with evaluation, ``label``, ``detectors``.

    Raises:
        NotInRunError: no evaluation, no such detectors, or an evaluation without their curves.
    """
    files = evaluated(request)
    rows, table = chosen_rows(request, files), files.scores
    curves = {}
    for row in rows:
        probabilities = risks(table.series[row.label], table.folds, _calibration(row, files.folder))
        curves[row.label] = reliability(probabilities, table.labels)

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        axes.plot([0, 1], [0, 1], color=LINE, linewidth=0.8)
        for number, row in enumerate(rows):
            found = curves[row.label]
            name = wrapped(f"{row.label} {row.ece:.3f}")
            held = found["count"] > 0
            style = {**line_style(number), "linewidth": 0.9}
            axes.plot(found["risk"][held], found["share"][held], label=name, **style)
        axes.set(xlim=(0, 1), ylim=(-0.02, 1.02), xlabel="risk, mean of the bin")
        axes.set_ylabel("share that is hallucinated")
        axes.set_box_aspect(1)
        figure.legend(loc="outside lower center", title="expected calibration error")

    points = [
        (label, number, int(count), risk, share)
        for label, found in curves.items()
        for number, (count, risk, share) in enumerate(
            zip(found["count"], found["risk"], found["share"], strict=True)
        )
        if count
    ]
    caption = (
        "Calibration: risks by a Platt curve fitted on the validation part of each fold, in bins "
        f"of equal width, against the share of hallucinated answers; {whose(files)}."
    )
    columns = ("detector", "bin", "count", "risk", "share")
    return PaperFigure(caption, columns, points, draw, 3.3 + 0.19 * len(rows))


def _calibration(row: Row, folder: Any) -> list[list[list[float]]]:
    if row.calibration is None or not np.isfinite(row.calibration).all():
        raise NotInRunError(
            f"The evaluation in {folder} has no calibration of {row.label}: `hallutrace evaluate` "
            f"{wording('in another folder', 'with --overwrite')} writes it"
        )
    return row.calibration
