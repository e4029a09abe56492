"""`hallutrace train`."""

from __future__ import annotations

import inspect
import shutil
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hallutrace.commands.text import (
    ERR,
    OUT,
    command,
    duration,
    plain,
    print_json,
    same_command,
    styled,
)
from hallutrace.errors import InputError
from hallutrace.store.reader import open_run

if TYPE_CHECKING:
    from hallutrace.detect import Detector, Examples
    from hallutrace.detect.provenance import Provenance

DONE = ("detector.json", "detector.safetensors")
WORK = "training"  # checkpoints and history of what is trained in epochs


@dataclass(frozen=True)
class Asked:
    """The command line; fields are named as its options."""

    run: Path
    detector: str
    label: str
    out: Path
    settings: list[str]
    epochs: int | None
    seed: int
    limit: int | None
    all_traces: bool
    overwrite: bool
    as_json: bool


class Told:
    """Prints each epoch and what is said beside."""

    def __init__(self) -> None:
        self.epochs = 0

    def epoch(self, number: int, loss: float, validation_auroc: float, seconds: float) -> None:
        """A line for each."""
        self.epochs += 1
        self.note(
            f"epoch {number:3}  loss {loss:.4f}  validation AUROC {validation_auroc:.4f}  "
            f"{seconds:.1f} s"
        )

    def note(self, text: str) -> None:
        """A line."""
        ERR.print(text)


def run_train(asked: Asked) -> None:
    """`hallutrace train`."""
    from hallutrace.detect import load_examples, make
    from hallutrace.detect.evaluation import parse_options
    from hallutrace.detect.provenance import Learnt, Provenance

    options = parse_options(asked.detector, asked.settings, "--set")
    if asked.epochs is not None:
        options["epochs"] = asked.epochs
    detector = make(asked.detector, seed=asked.seed, **options)
    examples = load_examples(open_run(asked.run), asked.label, limit=asked.limit)
    detector.check(examples.store)
    train, validation = (examples.take(part) for part in _parts(asked, examples))
    provenance = _provenance(asked, detector, train, validation)
    _check_out(asked.out, asked.overwrite, Provenance.read, provenance)
    if asked.overwrite:
        _clear(asked.out)
    provenance.write(asked.out)
    Learnt.of(train, validation).write(asked.out)
    told, began = Told(), time.monotonic()
    left = len(examples) - len(train) - len(validation)
    told.note(
        f"{asked.detector}: {len(train):,} traces to learn from, {len(validation):,} for "
        f"validation, {left:,} left for testing"
    )
    try:
        _fit(detector, train, validation, told, asked.out)
        finished = _finish(detector, validation, provenance)
    except KeyboardInterrupt:
        ERR.print(
            styled(
                "\nStopped. A detector that is trained in epochs goes on after the last of them.\n"
                "To go on: ",
                (same_command(), "bold"),
            )
        )
        raise SystemExit(130) from None
    finished.write(asked.out)
    detector.save(asked.out)
    _say(asked, finished, len(train), time.monotonic() - began)


def _parts(asked: Asked, examples: Examples) -> tuple[Any, Any]:
    """What is learnt from and what choices are made on: the first fold of an evaluation.

    Its test part is left alone, so that what the detector reaches there means something: `score`
    tells it, and ``TraceGraphs(split="test")`` gives the same traces.
    """
    from hallutrace.splits import fold, holdout

    if asked.all_traces:
        return holdout(examples.labels, examples.groups, asked.seed)
    split = fold(examples.labels, examples.groups, seed=asked.seed)
    return split.train, split.validation


def _provenance(
    asked: Asked, detector: Detector, train: Examples, validation: Examples
) -> Provenance:
    from hallutrace.canonical_json import digest
    from hallutrace.detect.evaluation.protocol import package_versions
    from hallutrace.detect.provenance import Provenance, label_parameters

    parts = [[part.keys, part.groups, part.labels.tolist()] for part in (train, validation)]
    manifest = train.store.manifest
    return Provenance(
        run=asked.run.resolve().name,
        fingerprint=manifest.fingerprint,
        identity=manifest.identity,
        facts=manifest.facts,
        label=asked.label,
        label_parameters=label_parameters(train, asked.label),
        detector={"name": detector.name, "options": detector.options, "seed": asked.seed},
        limit=asked.limit,
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
    detector: Detector, train: Examples, validation: Examples, told: Told, folder: Path
) -> None:
    given: dict[str, Any] = {"progress": told}
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


def _say(asked: Asked, finished: Provenance, learnt: int, seconds: float) -> None:
    if asked.as_json:
        about = {
            "folder": str(asked.out),
            "train": learnt,
            "validation_auroc": finished.validation_auroc,
            "seconds": seconds,
        }
        print_json(about)
        return
    run, detector = asked.run, asked.detector
    measure = command(
        "hallutrace", "evaluate", run, "--detectors", detector, "--label", asked.label
    )
    score = command("hallutrace", "score", run, "--detector", asked.out, "--out", "scores.csv")
    OUT.print(
        styled(
            (plain(str(asked.out)), "bold"),
            f": {detector}, validation AUROC {finished.validation_auroc:.3f} "
            f"({duration(seconds)}); choices were made there, so measure it with:\n"
            f"  {measure}\n"
            "Next:\n"
            f"  {score}",
        )
    )
