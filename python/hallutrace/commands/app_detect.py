"""The commands that detectors have on the command line: train, evaluate, score."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hallutrace.paths import expanded

Label = Annotated[
    str, typer.Option("--label", help="labels that `hallutrace label` made", metavar="NAME")
]
AsJson = Annotated[bool, typer.Option("--json", help="for machines: JSON on standard output")]
Limit = Annotated[
    int | None,
    typer.Option("--limit", help="the first so many labelled traces", metavar="N", min=1),
]


def evaluate(
    label: Label,
    run: Annotated[
        Path | None,
        typer.Argument(
            help="folder that `hallutrace extract` wrote", metavar="RUN", parser=expanded
        ),
    ] = None,
    detectors: Annotated[
        str,
        typer.Option(
            help="names with commas between them; NAME:option=value:option=value gives options, "
            "and all stands for all names",
            metavar="NAME,...",
        ),
    ] = "all",
    train_on: Annotated[
        Path | None,
        typer.Option(
            help="transfer: learn from this run, with --test-on", metavar="RUN", parser=expanded
        ),
    ] = None,
    test_on: Annotated[
        Path | None,
        typer.Option(
            help="transfer: test on this run, with --train-on", metavar="RUN", parser=expanded
        ),
    ] = None,
    folds: Annotated[int, typer.Option(help="splits by group", metavar="N")] = 5,
    seeds: Annotated[
        int | None,
        typer.Option(help="of detectors that depend on one (default: 3, 1 with --quick)"),
    ] = None,
    seeds_on: Annotated[
        str,
        typer.Option(
            help="all: each seed scores every fold; spread: fold k takes seed k mod seeds, so that "
            "there are as many fits as folds",
            metavar="all|spread",
        ),
    ] = "all",
    quick: Annotated[
        bool,
        typer.Option("--quick", help="controls, linear ones, one graph model, one seed"),
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            help="folder of the report (default: evaluations/RUN-LABEL)",
            metavar="PATH",
            parser=expanded,
        ),
    ] = None,
    limit: Limit = None,
    jobs: Annotated[
        int | None,
        typer.Option(
            help="fits at a time (default: one a core, at most 8; 2 on a GPU)", min=1, metavar="N"
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="of splits and bootstrap", metavar="N", min=0)] = 0,
    level: Annotated[float, typer.Option(help="of intervals", metavar="X")] = 0.95,
    draws: Annotated[int, typer.Option(help="of the bootstrap", metavar="N")] = 2000,
    shuffle_labels: Annotated[
        int | None,
        typer.Option(
            help="shuffle the labels among the groups with this seed first: every AUROC should be "
            ".5, or something of a group that was tested has been learnt from",
            metavar="N",
            min=0,
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="delete the evaluation in --out first")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Compare detectors on the same traces, splits and seeds, with the controls beside them.

    Out come table.md, evaluation.json and scores.csv. The same command again goes on after a kill
    with the fits that are missing.
    """
    from hallutrace.commands.evaluate import Asked, run_evaluate

    run_evaluate(
        Asked(
            run, train_on, test_on, detectors, label, folds, seeds, seeds_on, quick, out, limit,
            jobs, seed, level, draws, shuffle_labels, overwrite, as_json,
        )
    )  # fmt: skip


def train(
    run: Annotated[
        Path,
        typer.Argument(
            help="folder that `hallutrace extract` wrote", metavar="RUN", parser=expanded
        ),
    ],
    detector: Annotated[str, typer.Option(help="name of the detector", metavar="NAME")],
    label: Label,
    out: Annotated[
        Path, typer.Option(help="folder of the detector", metavar="PATH", parser=expanded)
    ],
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="an option of the detector", metavar="NAME=VALUE"),
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(help="most epochs; the same as --set epochs=N", min=1)
    ] = None,
    seed: Annotated[int, typer.Option(help="of split and training", metavar="N", min=0)] = 0,
    limit: Limit = None,
    all_traces: Annotated[
        bool,
        typer.Option(
            "--all-traces",
            help="leave no test part: learn from four fifths of the groups, choose on the others",
        ),
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="delete the detector in --out first")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Train a detector on the training and validation parts of the first fold of an evaluation.

    The test part of that fold, a fifth of the groups, is left alone: `hallutrace score` of the same
    run tells what is reached there. The same command again goes on after a kill.
    """
    from hallutrace.commands.train import Asked, run_train

    run_train(
        Asked(
            run, detector, label, out, settings or [], epochs, seed, limit, all_traces, overwrite,
            as_json,
        )
    )  # fmt: skip


DetectorFolder = Annotated[
    Path,
    typer.Option(
        "--detector",
        help="folder that `hallutrace train` wrote",
        metavar="PATH",
        parser=expanded,
    ),
]


def score(
    run: Annotated[
        Path,
        typer.Argument(
            help="folder that `hallutrace extract` wrote", metavar="RUN", parser=expanded
        ),
    ],
    detector: DetectorFolder,
    out: Annotated[
        Path | None,
        typer.Option(
            help=".csv or .jsonl (default: CSV on standard output)", metavar="FILE", parser=expanded
        ),
    ] = None,
    label: Annotated[
        str | None,
        typer.Option(
            help="labels to put beside the scores (default: those it was trained with)",
            metavar="NAME",
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="replace the file in --out")
    ] = False,
) -> None:
    """Score the traces of a run with a detector that was trained.

    Higher scores mean more likely hallucinated; `risk` is the score as a probability, after a curve
    fitted on the validation part of the run that the detector was trained on.
    """
    from hallutrace.commands.score import Asked, run_score

    run_score(Asked(run, detector, out, label, overwrite))


def ask(
    question: Annotated[str, typer.Argument(help="what to ask the model", metavar="QUESTION")],
    detector: DetectorFolder,
    context: Annotated[
        str | None, typer.Option(help="a text that the question is about", metavar="TEXT")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="another name or folder of the model (default: the one whose traces the detector "
            "was trained on)",
            metavar="NAME",
        ),
    ] = None,
    device: Annotated[
        str, typer.Option(help="where the model runs: auto, cpu, cuda", metavar="NAME")
    ] = "auto",
    trust_remote_code: Annotated[
        bool,
        typer.Option(
            "--trust-remote-code", help="run code that comes with the model; read it first"
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Ask the model one question, and score its answer with a detector that was trained.

    The model of the run that the detector was trained on is asked in the same way; the answer is
    printed with its risk, by token where the detector has one.
    """
    from hallutrace.commands.ask import Asked, run_ask

    run_ask(Asked(question, detector, context, model, device, trust_remote_code, as_json))


def add_to(app: typer.Typer) -> None:
    """Gives the command line these commands."""
    for command in (train, evaluate, score, ask):
        app.command()(command)
