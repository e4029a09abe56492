"""`hallutrace score`."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from hallutrace import atomic_files
from hallutrace.atomic_files import storage_errors
from hallutrace.canonical_json import to_utf8
from hallutrace.commands.common_options import DetectorFolder, Plugins, RunFolder
from hallutrace.commands.console import (
    ERR,
    OUT,
    decimal,
    followed,
    plain,
    print_data,
    styled,
)
from hallutrace.errors import InputError, NonFiniteError
from hallutrace.escaping import csv_cell
from hallutrace.paths import expanded

if TYPE_CHECKING:
    from hallutrace.detect import Detector, Examples
    from hallutrace.detect.provenance import Provenance, TrainingTraces
    from hallutrace.store.reader import TraceStore

AT_ONCE = 500  # traces whose features are in memory
COLUMNS = ("id", "sample", "score", "risk", "label", "part")


def run_score(
    run: RunFolder,
    detector: DetectorFolder,
    out: Annotated[
        Path | None,
        typer.Option(
            help="File to write, .csv or .jsonl (default: CSV on standard output).",
            metavar="FILE",
            parser=expanded,
        ),
    ] = None,
    label: Annotated[
        str | None,
        typer.Option(
            help="Name of the labels to put beside the scores (default: those that the detector "
            "was trained with).",
            metavar="NAME",
        ),
    ] = None,
    plugins: Plugins = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the file given by --out.")
    ] = False,
) -> None:
    """Score the traces of a run with a trained detector.

    Higher scores mean more likely hallucinated. `risk` is the score as a probability, by a curve
    fitted on the validation part of the run that the detector was trained on.
    """
    from hallutrace.detect import load
    from hallutrace.detect.provenance import Provenance, TrainingTraces
    from hallutrace.store.reader import open_run

    _check_out(out, overwrite)
    loaded = load(detector)
    provenance, trained_on = Provenance.read(detector), TrainingTraces.read(detector)
    store = open_run(run)
    loaded.check(store)
    name, labels = _labels(label, store, provenance)
    rows = list(_rows(store, loaded, provenance, trained_on, labels))
    _write(out, rows)
    for warning in filter(None, (_warning(rows, provenance, trained_on), _without(rows))):
        ERR.print(f"Warning: {warning}")
    if out is not None:
        OUT.print(_summary(out, loaded, rows, name))


def _check_out(out: Path | None, overwrite: bool) -> None:
    """Refuses a file that cannot be written.

    Raises:
        InputError: naming it.
    """
    if out is None:
        return
    if out.suffix not in (".csv", ".jsonl"):
        raise InputError(f"Expected a .csv or .jsonl file, got {out} - change --out")
    if out.exists() and not overwrite:
        raise InputError(
            f"Expected no such file, got {out} - choose another --out, or replace it with "
            "--overwrite"
        )


def _labels(
    label: str | None, store: TraceStore, provenance: Provenance | None
) -> tuple[str | None, dict[tuple[str, int], int | None]]:
    """Labels by key: those named, or those the detector was trained with if the run has them."""
    from hallutrace import labels

    if label is not None:
        return label, labels.read(store.folder, label)
    if provenance is not None and provenance.label in store.labels():
        return provenance.label, labels.read(store.folder, provenance.label)
    return None, {}


def _rows(
    store: TraceStore,
    detector: Detector,
    provenance: Provenance | None,
    trained_on: TrainingTraces | None,
    labels: dict[tuple[str, int], int | None],
) -> Iterator[dict[str, Any]]:
    """One row per trace, in the run's order; features are in memory for some of them at a time."""
    import numpy as np

    from hallutrace.detect import Examples

    same = provenance is not None and provenance.fingerprint == store.manifest.fingerprint
    curve = None if provenance is None else provenance.curve
    for begin in followed(range(0, len(store), AT_ONCE), "scoring"):
        indices = np.arange(begin, min(begin + AT_ONCE, len(store)))
        some = Examples(store, indices, np.zeros(len(indices), np.int8))
        scores = _scores(detector, some)
        for key, group, score in zip(some.keys, some.groups, scores, strict=True):
            risk = None if curve is None or score is None else float(curve([score])[0])
            yield {
                "id": key[0],
                "sample": key[1],
                "score": score,
                "risk": risk,
                "label": labels.get(key),
                "part": "" if trained_on is None else _part(trained_on, key, group, same),
            }


def _scores(detector: Detector, some: Examples) -> list[float | None]:
    """The score of each; None where numbers of a trace are not finite."""
    try:
        scores = detector.scores(some).tolist()
    except NonFiniteError:
        if len(some) == 1:
            return [None]
        # One at a time, so that only the traces with such numbers have no score.
        return [score for at in range(len(some)) for score in _scores(detector, some.take([at]))]
    return [score if math.isfinite(score) else None for score in scores]


def _part(trained_on: TrainingTraces, key: tuple[str, int], group: str, is_same_run: bool) -> str:
    """The part of the training that a trace was in."""
    if is_same_run and key in trained_on.train:
        return "train"
    if is_same_run and key in trained_on.validation:
        return "validation"
    return "group" if group in trained_on.groups else ""


def _write(out: Path | None, rows: list[dict[str, Any]]) -> None:
    if out is None:
        print_data(_csv(rows))
        return
    is_csv = out.suffix == ".csv"
    text = (
        _csv(rows)
        if is_csv
        else "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    )
    with storage_errors(f"write {out}", "choose another --out"):
        atomic_files.write(out, to_utf8(text))


def _csv(rows: list[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: csv_cell(value) for name, value in row.items()} for row in rows)
    return text.getvalue()


def _without(rows: list[dict[str, Any]]) -> str | None:
    """A warning that names traces without a score."""
    from hallutrace.store.finite_numbers import NON_FINITE_FIX

    bare = [row for row in rows if row["score"] is None]
    if not bare:
        return None
    named = "; ".join(f"{row['id']!r}, sample {row['sample']}" for row in bare[:3])
    return (
        f"{len(bare):,} of {len(rows):,} traces have no score, for numbers in them are NaN or "
        f"infinite, first {named} - {NON_FINITE_FIX}"
    )


def _warning(
    rows: list[dict[str, Any]], provenance: Provenance | None, trained_on: TrainingTraces | None
) -> str | None:
    """A warning where the scores are of traces that the detector was trained on."""
    if provenance is None or trained_on is None:
        return "it is not known what the detector was trained on, so it may have seen these traces"
    counts = {part: sum(row["part"] == part for row in rows) for part in ("train", "validation")}
    if any(counts.values()):
        return (
            f"{counts['train']:,} of {len(rows):,} traces were in the detector's training part and "
            f"{counts['validation']:,} in its validation part (column `part`): what it reaches on "
            "them says nothing"
        )
    near = sum(row["part"] == "group" for row in rows)
    if near:
        return (
            f"{near:,} of {len(rows):,} traces are of groups that the detector was trained on "
            f"(column `part`), in the run {provenance.run}"
        )
    return None


def _summary(out: Path, detector: Detector, rows: list[dict[str, Any]], name: str | None) -> Text:
    from hallutrace.detect.metrics import auroc

    text = f": {len(rows):,} scores of {detector.name}"
    unseen = [row for row in rows if None not in (row["label"], row["score"]) and not row["part"]]
    labels = [row["label"] for row in unseen]
    if len(set(labels)) == 2:
        reached = auroc([row["score"] for row in unseen], labels)
        text += (
            f"\n  AUROC {decimal(reached)} by the labels {plain(str(name))} on {len(unseen):,} "
            "traces that training has not seen"
        )
    return styled((plain(str(out)), "bold"), text)
