"""`hallutrace evaluate`."""

from __future__ import annotations

import json
import shutil
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hallutrace.commands.common_options import (
    AsJson,
    LabelName,
    Limit,
    Plugins,
    choices,
    completes,
    detector_names,
)
from hallutrace.commands.console import ERR, print_json, stopping
from hallutrace.commands.progress_display import FitsDisplay
from hallutrace.commands.terminal_table import show_evaluation
from hallutrace.cpu_threads import available_cpus
from hallutrace.errors import InputError
from hallutrace.paths import expanded

if TYPE_CHECKING:
    from hallutrace.detect.evaluation import EvaluationData, EvaluationOptions

MOST_PROCESSES = 8
FITS = "fits"


def run_evaluate(
    label: LabelName,
    run: Annotated[
        Path | None,
        typer.Argument(
            help="Folder of a run, as `hallutrace extract` wrote it.",
            metavar="RUN",
            parser=expanded,
        ),
    ] = None,
    detectors: Annotated[
        str,
        typer.Option(
            help="Names of detectors, separated by commas; NAME:option=value:option=value sets "
            "options, and all stands for all names.",
            metavar="NAME,...",
            autocompletion=completes(lambda: ["all", *detector_names()]),
        ),
    ] = "all",
    train_on: Annotated[
        Path | None,
        typer.Option(
            help="Train on this run and test on that of --test-on (default: both on RUN).",
            metavar="RUN",
            parser=expanded,
        ),
    ] = None,
    test_on: Annotated[
        Path | None,
        typer.Option(
            help="Test on this run, with --train-on (default: on RUN).",
            metavar="RUN",
            parser=expanded,
        ),
    ] = None,
    folds: Annotated[int, typer.Option(help="Number of splits by group.", metavar="N")] = 5,
    seeds: Annotated[
        int | None,
        typer.Option(
            help="Number of seeds of detectors that depend on one (default: 3; 1 with --quick).",
            metavar="N",
        ),
    ] = None,
    seeds_on: Annotated[
        str,
        typer.Option(
            help="all: each seed is fitted on every fold; spread: fold k takes seed k mod seeds, "
            "so there are as many fits as folds.",
            **choices("all", "spread"),
        ),
    ] = "all",
    quick: Annotated[
        bool,
        typer.Option(
            "--quick", help="Only controls, linear detectors and one graph model, with one seed."
        ),
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the report (default: evaluations/RUN-LABEL).",
            metavar="PATH",
            parser=expanded,
        ),
    ] = None,
    limit: Limit = None,
    jobs: Annotated[
        int | None,
        typer.Option(
            help="Number of fits at the same time (default: one per CPU, at most 8; 2 on a GPU).",
            min=1,
            metavar="N",
        ),
    ] = None,
    seed: Annotated[
        int, typer.Option(help="Seed of the splits and of the bootstrap.", metavar="N", min=0)
    ] = 0,
    level: Annotated[
        float, typer.Option(help="Level of the confidence intervals, from 0 to 1.", metavar="X")
    ] = 0.95,
    draws: Annotated[int, typer.Option(help="Number of bootstrap draws.", metavar="N")] = 2000,
    shuffle_labels: Annotated[
        int | None,
        typer.Option(
            help="Shuffle the labels among the groups with this seed first. Every AUROC should "
            "then be .5; one that is not shows that test groups were used in training.",
            metavar="N",
            min=0,
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Delete the evaluation in --out first.")
    ] = False,
    plugins: Plugins = None,
    as_json: AsJson = False,
) -> None:
    """Compare detectors on the same traces, splits and seeds, with controls beside them.

    Writes table.md, evaluation.json and scores.csv. After a kill the same command goes on with the
    fits that are missing.
    """
    from hallutrace.detect import evaluation as evaluating

    train_run, test_run = _runs(run, train_on, test_on)
    options = evaluating.EvaluationOptions(
        rows=evaluating.table_rows(detectors, quick),
        folds=folds,
        seeds=seeds if seeds is not None else (1 if quick else 3),
        seeds_on=seeds_on,  # type: ignore[arg-type]  # checked there
        split_seed=seed,
        draws=draws,
        level=level,
        shuffle_labels=shuffle_labels,
    )
    folder = out or _default_folder(train_run, test_run, label, quick)
    _check_out(folder, overwrite)
    data = _data(train_run, test_run, label, limit, options)
    evaluating.inapplicable(options.rows, data)
    if overwrite:
        _clear(folder)
    began = time.monotonic()
    with stopping("Fits that were finished are kept."), FitsDisplay(ERR) as progress:
        evaluation = evaluating.evaluate(
            data, options, folder / FITS, processes=jobs or _processes(), progress=progress
        )
    evaluating.write_report(evaluation, label, folder)
    if as_json:
        print_json(evaluating.to_json(evaluation, label))
    else:
        show_evaluation(evaluation, label, folder, time.monotonic() - began)
    if any(row.is_requested and row.label in evaluation.failed for row in options.rows):
        raise SystemExit(1)


def _runs(run: Path | None, train_on: Path | None, test_on: Path | None) -> tuple[Path, Path]:
    """The run to train on and the run to test on.

    Raises:
        InputError: neither one run, nor both of a transfer.
    """
    if run is not None and train_on is None and test_on is None:
        return run, run
    if run is None and train_on is not None and test_on is not None:
        return train_on, test_on
    given = {"RUN": run, "--train-on": train_on, "--test-on": test_on}
    there = [name for name, value in given.items() if value is not None]
    raise InputError(
        f"Expected RUN, or --train-on with --test-on, got {', '.join(there) or 'none'} - "
        "begin with `hallutrace evaluate runs/demo --label contains`"
    )


def _default_folder(train_run: Path, test_run: Path, label: str, quick: bool) -> Path:
    names = [test_run.resolve().name, label, *(["quick"] if quick else [])]
    if train_run != test_run:
        names.insert(0, f"{train_run.resolve().name}-to")
    return Path("evaluations") / "-".join(names)


def _processes() -> int:
    """One per CPU; on a GPU, which they share, no more than two."""
    torch = sys.modules.get("torch")
    most = 2 if torch is not None and torch.cuda.is_available() else MOST_PROCESSES
    return min(available_cpus(), most)


def _data(
    train_run: Path, test_run: Path, label: str, limit: int | None, options: EvaluationOptions
) -> EvaluationData:
    from hallutrace.detect import load_examples
    from hallutrace.detect.evaluation import EvaluationData, shuffled
    from hallutrace.store.reader import open_run

    runs = [train_run] if train_run == test_run else [train_run, test_run]
    found = [load_examples(open_run(run), label, limit=limit) for run in runs]
    if options.shuffle_labels is not None:
        found = shuffled(found, options.shuffle_labels)
    if len(found) == 1:
        return EvaluationData.of(found[0], options.folds, options.split_seed)
    return EvaluationData.transfer(found[0], found[1], options.folds, options.split_seed)


def _check_out(folder: Path, overwrite: bool) -> None:
    """Refuses a folder that holds a finished evaluation, or anything else.

    Raises:
        InputError: naming what is there.
    """
    from hallutrace.detect.evaluation import FILES, JSON_FILE

    if folder.exists() and not folder.is_dir():
        raise InputError(f"Expected a folder, got the file {folder} - choose another --out")
    there = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    others = sorted(name for name in there - {FITS, *FILES} if not name.endswith(".partial"))
    if others:
        raise InputError(
            f"Expected a new folder, or one of an evaluation, got {folder} with {others[0]} - "
            "choose another --out"
        )
    if JSON_FILE in there and not overwrite and not _has_failures(folder / JSON_FILE):
        raise InputError(
            f"Expected no finished evaluation, got one in {folder} - choose another --out, or "
            "start over with --overwrite"
        )


def _has_failures(path: Path) -> bool:
    """Whether a finished evaluation has rows that failed, which may be tried again."""
    try:
        rows = json.loads(path.read_bytes())["detectors"]
        return any(row["status"] == "failed" for row in rows)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _clear(folder: Path) -> None:
    from hallutrace.detect.evaluation import FILES

    shutil.rmtree(folder / FITS, ignore_errors=True)
    for name in FILES:
        (folder / name).unlink(missing_ok=True)
