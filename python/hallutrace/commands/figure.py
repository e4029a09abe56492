"""`hallutrace figure`: a figure for a paper, and the numbers in it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hallutrace.commands.common_options import choices, completes
from hallutrace.commands.console import ERR, OUT, plain
from hallutrace.errors import InputError, NotInRunError
from hallutrace.paths import expanded

if TYPE_CHECKING:
    from hallutrace.viewer.figures.drawing import Format
    from hallutrace.viewer.viewed_run import ViewedRun

_NAMES = ("roc", "calibration", "comparison", "layers-heads", "attention-graph", "map", "training")


def run_figure(
    name: Annotated[
        str,
        typer.Argument(
            help=f"One of {', '.join(_NAMES)}.",
            metavar="NAME",
            autocompletion=completes(lambda: _NAMES),
        ),
    ],
    run: Annotated[
        Path | None,
        typer.Argument(
            help="Folder of a run, as `hallutrace extract` wrote it.",
            metavar="RUN",
            parser=expanded,
        ),
    ] = None,
    form: Annotated[
        str | None,
        typer.Option(
            "--format",
            help="Format of the picture (default: what --out ends in, or svg).",
            **choices("svg", "pdf", "png"),
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="File of the picture; its numbers are put beside it, in a file that ends in .csv "
            "(default: RUN-NAME.svg).",
            metavar="FILE",
            parser=expanded,
        ),
    ] = None,
    column: Annotated[
        str | None,
        typer.Option(
            help="Width: single, 85 mm, or double, 175 mm (default: what suits the figure).",
            **choices("single", "double"),
        ),
    ] = None,
    evaluation: Annotated[
        Path | None,
        typer.Option(
            help="Folder of an evaluation of this run, for roc, calibration and comparison "
            "(default: the newest one found in evaluations/ or beside the run).",
            metavar="DIR",
            parser=expanded,
        ),
    ] = None,
    label: Annotated[
        str | None,
        typer.Option(
            help="Name of the labels (default: those of the evaluation, or the run's first).",
            metavar="NAME",
        ),
    ] = None,
    detectors: Annotated[
        list[str] | None,
        typer.Option(
            "--detector",
            help="A detector, as the table of the evaluation names it; for training the folder "
            "that `hallutrace train` wrote. May be given several times (default: the best ones and "
            "their controls, all in comparison; the newest that was trained on the run).",
            metavar="NAME",
        ),
    ] = None,
    metric: Annotated[
        str,
        typer.Option(help="Metric of comparison.", **choices("auroc", "auprc", "tpr5", "tpr10")),
    ] = "auroc",
    marginal: Annotated[
        str | None,
        typer.Option(
            help="Exact marginal of layers-heads: entropy, previous, diagonal, received, "
            "mass-first, mass-question, mass-context, mass-answer, square, rough, value-norm "
            "(default: entropy).",
            metavar="NAME",
        ),
    ] = None,
    shown: Annotated[
        str | None,
        typer.Option(
            help="What layers-heads shows: hallucinated less right, the mean of the run, or the "
            "AUROC of each head (default: difference, or mean without labels).",
            **choices("difference", "mean", "auroc"),
        ),
    ] = None,
    trace: Annotated[
        str | None,
        typer.Option(
            help="Key of the trace of attention-graph: the id of its question, with #K for sample "
            "K > 0 (default: the first hallucinated one).",
            metavar="KEY",
        ),
    ] = None,
    layer: Annotated[
        int | None,
        typer.Option(
            help="Layer of attention-graph (default: the middle one) or of map (default: the last "
            "with hidden states), from 0.",
            metavar="N",
        ),
    ] = None,
    token: Annotated[
        str | None,
        typer.Option(
            help="Token whose hidden state map shows (default: last_answer).",
            **choices("last_answer", "last_prompt", "last", "mean_answer", "first_answer"),
        ),
    ] = None,
    method: Annotated[
        str,
        typer.Option(
            help="Method of map; others than pca are made by `hallutrace project` first.",
            **choices("pca", "tsne", "umap"),
        ),
    ] = "pca",
    seed: Annotated[int, typer.Option(help="Seed of a stored map.", metavar="N", min=0)] = 0,
    top_k: Annotated[
        int, typer.Option(help="Edges of each token in attention-graph.", metavar="N", min=1)
    ] = 3,
) -> None:
    """Draw a figure for a paper, and write the numbers that are in it as CSV beside it.

    Text stays text, of 8 points; colours are told apart by the colour-blind, and lines and classes
    also by dashes and marks. The same input gives the same bytes of SVG.
    """
    from hallutrace.viewer.figures.drawing import FigureRequest
    from hallutrace.viewer.figures.registry import FIGURES, make_figure
    from hallutrace.viewer.figures.style import COLUMNS

    if name not in FIGURES:
        raise InputError(f"Expected one of {', '.join(FIGURES)}, got {name!r} - choose a figure")
    if column not in (None, *COLUMNS):
        raise InputError(f"Expected single or double, got {column!r} - change --column")
    picture, chosen = _file(name, run, out, form)
    viewed = None if run is None else _viewed(name, run, evaluation, label)
    request = FigureRequest(
        viewed,
        label=label,
        detectors=tuple(detectors or ()),
        trace=trace,
        layer=layer,
        token=token,
        marginal=marginal,
        shown=shown,
        metric=metric,
        method=method,
        seed=seed,
        top_k=top_k,
    )
    figure = make_figure(name, request)
    files = figure.write(picture, chosen, column)  # type: ignore[arg-type]  # checked above
    OUT.print(plain(f"{files[0]} and {files[1].name}, {len(figure.rows):,} rows"), highlight=False)
    ERR.print(plain(figure.caption), highlight=False)


def _file(name: str, run: Path | None, out: Path | None, form: str | None) -> tuple[Path, Format]:
    """The file of the picture, and its format.

    Raises:
        InputError: a format that is not known, or one that the file's name contradicts.
    """
    from hallutrace.viewer.figures.drawing import FORMATS

    ending = out.suffix[1:].lower() if out is not None else ""
    chosen = form or (ending if ending in FORMATS else "svg" if out is None else ending)
    if chosen not in FORMATS:
        raise InputError(
            f"Expected a format among {', '.join(FORMATS)}, got {chosen or 'none'!r} - change "
            "--format, or the end of --out"
        )
    if form and ending in {*FORMATS, "csv"} and ending != form:
        raise InputError(f"Expected --out to end in .{form}, got {out} - change it, or --format")
    begin = f"{run.resolve().name}-" if run is not None else ""
    return out or Path(f"{begin}{name}.{chosen}"), chosen


def _viewed(name: str, run: Path, evaluation: Path | None, label: str | None) -> ViewedRun:
    """The run, with the evaluation that is given, or the newest that is found if one is needed."""
    from hallutrace.store.reader import open_run
    from hallutrace.viewer.evaluations.discovery import find_for
    from hallutrace.viewer.figures.registry import NEED_EVALUATION
    from hallutrace.viewer.viewed_run import ViewedRun

    store = open_run(run)
    if name not in NEED_EVALUATION:
        return ViewedRun(store, evaluation)
    given: dict[str, Any] = {} if evaluation is None else {"evaluations": [evaluation]}
    found = [
        one
        for one in find_for(store, **given).evaluations
        if evaluation is not None or (not one.is_check and label in (None, one.label))
    ]
    if not found:
        raise NotInRunError(
            f"No evaluation of this run was found: `hallutrace evaluate {run} --label "
            f"{label or 'contains'}` makes one; give its folder with --evaluation"
        )
    return ViewedRun(store, found[0].folder)
