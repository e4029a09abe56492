"""`hallutrace train`."""

from __future__ import annotations

import inspect
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hallutrace.commands.common_options import (
    AsJson,
    LabelName,
    Limit,
    Plugins,
    RunFolder,
    completes,
    detector_names,
)
from hallutrace.commands.console import (
    ERR,
    OUT,
    command,
    duration,
    plain,
    print_json,
    stopping,
    styled,
)
from hallutrace.commands.tensorboard_log import TensorBoardLog
from hallutrace.errors import InputError
from hallutrace.paths import expanded
from hallutrace.plugins import Registered

if TYPE_CHECKING:
    from hallutrace.detect import Detector, Examples
    from hallutrace.detect.provenance import Provenance

DONE = ("detector.json", "detector.safetensors")
WORK = "training"  # checkpoints and history of what is trained in epochs


class EpochPrinter:
    """Prints a line for each epoch, and notes.

    Args:
        log: is written after each epoch too.
    """

    def __init__(self, log: TensorBoardLog | None = None) -> None:
        self.epochs, self._log = 0, log

    def epoch(self, number: int, loss: float, validation_auroc: float, seconds: float) -> None:
        """A line for each."""
        self.epochs += 1
        self.note(
            f"epoch {number:3}  loss {loss:.4f}  validation AUROC {validation_auroc:.4f}  "
            f"{seconds:.1f} s"
        )
        if self._log is not None:
            self._log.follow()

    def note(self, text: str) -> None:
        """A line."""
        ERR.print(text)


def run_train(
    run: RunFolder,
    detector: Annotated[
        str,
        typer.Option(
            help="Name of the detector.", metavar="NAME", autocompletion=completes(detector_names)
        ),
    ],
    label: LabelName,
    out: Annotated[
        Path,
        typer.Option(help="Folder of the trained detector.", metavar="PATH", parser=expanded),
    ],
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="An option of the detector; may be given several times (default: none).",
            metavar="NAME=VALUE",
        ),
    ] = None,
    epochs: Annotated[
        int | None,
        typer.Option(
            help="Largest number of epochs, the same as --set epochs=N (default: the detector's).",
            metavar="N",
            min=1,
        ),
    ] = None,
    seed: Annotated[
        int, typer.Option(help="Seed of the split and of the training.", metavar="N", min=0)
    ] = 0,
    limit: Limit = None,
    all_traces: Annotated[
        bool,
        typer.Option(
            "--all-traces",
            help="Leave out no test part: train on four fifths of the groups, validate on one.",
        ),
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Delete the detector in --out first.")
    ] = False,
    tensorboard: Annotated[
        Path | None,
        typer.Option(
            help="Write the epochs for TensorBoard to this folder too, of a detector that is "
            "trained in epochs (default: do not).",
            metavar="PATH",
            parser=expanded,
        ),
    ] = None,
    plugins: Plugins = None,
    as_json: AsJson = False,
) -> None:
    """Train a detector on the training and validation parts of the first fold of an evaluation.

    The test part of that fold, a fifth of the groups, is not used: `hallutrace score` of the same
    run tells what the detector reaches there. The same command again goes on after a kill.
    """
    from hallutrace.detect import load_examples, make
    from hallutrace.detect.evaluation import parse_options
    from hallutrace.detect.provenance import Provenance, TrainingTraces
    from hallutrace.store.reader import open_run

    options = parse_options(detector, settings or [], "--set")
    if epochs is not None:
        options["epochs"] = epochs
    untrained = make(detector, seed=seed, **options)
    examples = load_examples(open_run(run), label, limit=limit)
    untrained.check(examples.store)
    untrained.check_can_be_saved()
    train, validation = (examples.take(part) for part in _parts(examples, seed, all_traces))
    provenance = _provenance(run, label, seed, limit, untrained, train, validation)
    _check_out(out, overwrite, Provenance.read, provenance)
    log = None if tensorboard is None else TensorBoardLog(tensorboard, out / WORK)
    if overwrite:
        _clear(out)
    provenance.write(out)
    TrainingTraces.of(train, validation).write(out)
    printer, began = EpochPrinter(log), time.monotonic()
    left = len(examples) - len(train) - len(validation)
    printer.note(
        f"{detector}: {len(train):,} traces to train on, {len(validation):,} for validation, "
        f"{left:,} left for testing"
    )
    with stopping("A detector that is trained in epochs goes on after the last of them."):
        _fit(untrained, train, validation, printer, out)
        finished = _finish(untrained, validation, provenance)
    finished.write(out)
    untrained.save(out)
    seconds, reached = time.monotonic() - began, finished.validation_auroc
    if as_json:
        about = {"folder": str(out), "train": len(train)}
        print_json({**about, "validation_auroc": reached, "seconds": seconds})
    else:
        _print_summary(run, detector, label, out, reached, seconds)


def _parts(examples: Examples, seed: int, all_traces: bool) -> tuple[Any, Any]:
    """The training and the validation part of the first fold of an evaluation.

    Its test part is not used, so that `score` can measure the detector there;
    ``TraceGraphs(split="test")`` gives the same traces.
    """
    from hallutrace.splits import fold, holdout

    if all_traces:
        return holdout(examples.labels, examples.groups, seed)
    split = fold(examples.labels, examples.groups, seed=seed)
    return split.train, split.validation


def _provenance(
    run: Path,
    label: str,
    seed: int,
    limit: int | None,
    detector: Detector,
    train: Examples,
    validation: Examples,
) -> Provenance:
    from hallutrace.canonical_json import digest
    from hallutrace.detect.evaluation.protocol import package_versions
    from hallutrace.detect.provenance import Provenance, label_parameters
    from hallutrace.detect.registry import REGISTRY

    parts = [[part.keys, part.groups, part.labels.tolist()] for part in (train, validation)]
    manifest = train.store.manifest
    return Provenance(
        run=run.resolve().name,
        fingerprint=manifest.fingerprint,
        identity=manifest.identity,
        facts=manifest.facts,
        label=label,
        label_parameters=label_parameters(train, label),
        detector={
            "name": detector.name,
            "options": detector.options.to_json(),
            "seed": seed,
            "code": REGISTRY.code_digest(detector.name),
        },
        limit=limit,
        split=digest(parts).hex()[:16],
        versions=package_versions(),
    )


def _check_out(folder: Path, overwrite: bool, read: Any, asked: Provenance) -> None:
    """Refuses a folder that holds a detector, another training, or anything else.

    Raises:
        InputError: naming what is there.
    """
    from hallutrace.detect.provenance import SPLIT, TRAINING

    if folder.exists() and not folder.is_dir():
        raise InputError(f"Expected a folder, got the file {folder} - choose another --out")
    there = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    known = {TRAINING, SPLIT, *DONE, WORK}
    others = sorted(name for name in there - known if not name.endswith((".partial", ".new")))
    if others:
        raise InputError(
            f"Expected a new folder, or one of a detector, got {folder} with {others[0]} - "
            "choose another --out"
        )
    if overwrite:
        return
    if DONE[0] in there:
        raise InputError(
            f"Expected no trained detector, got one in {folder} - choose another --out, or start "
            "over with --overwrite"
        )
    earlier = read(folder) if there else None
    if earlier is not None:
        earlier.check_same(asked, folder)


def _clear(folder: Path) -> None:
    from hallutrace.detect.provenance import SPLIT, TRAINING

    for name in (*DONE, WORK, TRAINING, SPLIT):
        path = folder / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _fit(
    detector: Detector, train: Examples, validation: Examples, printer: EpochPrinter, folder: Path
) -> None:
    given: dict[str, Any] = {"progress": printer}
    if "workspace" in inspect.signature(detector.fit).parameters:
        given["workspace"] = folder / WORK
    detector.fit(train, validation, **given)


def _finish(detector: Detector, validation: Examples, provenance: Provenance) -> Provenance:
    from hallutrace.detect.metrics import Platt, auroc

    scores = detector.finite_scores(validation)
    curve = Platt.fit(scores, validation.labels)
    return replace(
        provenance,
        validation_auroc=auroc(scores, validation.labels),
        calibration=(curve.slope, curve.intercept),
    )


def _print_summary(
    run: Path, detector: str, label: str, out: Path, validation_auroc: float | None, seconds: float
) -> None:
    plugins = [part for file in Registered.here().files for part in ("--plugin", file)]
    evaluate = ("evaluate", run, "--detectors", detector, "--label", label, *plugins)
    measure = command("hallutrace", *evaluate)
    score = command("hallutrace", "score", run, "--detector", out, "--out", "scores.csv", *plugins)
    OUT.print(
        styled(
            (plain(str(out)), "bold"),
            f": {detector}, validation AUROC {validation_auroc:.3f} "
            f"({duration(seconds)}); choices were made there, so measure it with:\n"
            f"  {measure}\n"
            "Next:\n"
            f"  {score}",
        )
    )
