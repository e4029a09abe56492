"""Which rows of an evaluation a figure shows."""

from __future__ import annotations

from hallutrace.errors import InputError
from hallutrace.viewer.evaluations.content import Row
from hallutrace.viewer.evaluations.files import EvaluationFiles
from hallutrace.viewer.figures.drawing import FigureRequest

MOST = 8
"""Lines of one figure that still can be told apart."""

_BEST = 4


def evaluated(request: FigureRequest) -> EvaluationFiles:
    """The evaluation, if it is of the labels that are asked for.

    Raises:
        NotInRunError: there is none.
        InputError: it is of other labels.
    """
    files = request.run.evaluation_files
    name = files.content.run.label.name
    if request.label not in (None, name):
        raise InputError(
            f"Expected an evaluation by the labels {request.label}, got one by {name} in "
            f"{files.folder} - `hallutrace evaluate RUN --label {request.label}` makes one"
        )
    return files


def chosen_rows(request: FigureRequest, files: EvaluationFiles) -> list[Row]:
    """The rows that are asked for; else the best four, with the best control and their controls.

    Raises:
        NotInRunError: no such row, or one without figures.
        InputError: more than can be told apart, or an evaluation without figures.
    """
    content = files.content
    if request.detectors:
        if len(request.detectors) > MOST:
            raise InputError(
                f"Expected at most {MOST} detectors, got {len(request.detectors)} - lines could "
                "not be told apart"
            )
        return [content.row(label) for label in request.detectors]
    ranked = sorted(content.done, key=lambda row: -row.reached)
    if not ranked:
        raise InputError(f"Expected a detector with figures, got none in {files.folder}")
    chosen = {row.label for row in ranked[:_BEST]} | {content.best_control}
    chosen |= {row.label for row in ranked if row.edges_control_of in chosen}
    return [row for row in ranked if row.label in chosen][:MOST]


def whose(files: EvaluationFiles) -> str:
    """What the traces of an evaluation are, to end a caption with."""
    run = files.content.run
    counts = run.counts
    return (
        f"{counts.traces:,} traces of {counts.groups:,} groups in {run.name}, of which "
        f"{counts.hallucinated:,} are hallucinated by {run.label.name}"
    )
