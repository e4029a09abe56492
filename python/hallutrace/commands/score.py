"""`hallutrace score`."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.text import Text

from hallutrace import atomic_files
from hallutrace.atomic_files import storage_errors
from hallutrace.canonical_json import to_utf8
from hallutrace.commands.text import (
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
from hallutrace.store.reader import TraceStore, open_run

if TYPE_CHECKING:
    from hallutrace.detect import Detector, Examples
    from hallutrace.detect.provenance import Learnt, Provenance

AT_ONCE = 500  # traces whose features are in memory
COLUMNS = ("id", "sample", "score", "risk", "label", "part")


@dataclass(frozen=True)
class Asked:
    """The command line; fields are named as its options."""

    run: Path
    detector: Path
    out: Path | None
    label: str | None
    overwrite: bool

    def check(self) -> None:
        """Refuses a file that cannot be written.

        Raises:
            InputError: naming it.
        """
        if self.out is None:
            return
        if self.out.suffix not in (".csv", ".jsonl"):
            raise InputError(f"Expected a .csv or .jsonl file, got {self.out} - change --out")
        if self.out.exists() and not self.overwrite:
            raise InputError(
                f"Expected no such file, got {self.out} - choose another --out, or replace it "
                "with --overwrite"
            )


def run_score(asked: Asked) -> None:
    """`hallutrace score`."""
    from hallutrace.detect import load
    from hallutrace.detect.provenance import Learnt, Provenance

    asked.check()
    detector = load(asked.detector)
    provenance, learnt = Provenance.read(asked.detector), Learnt.read(asked.detector)
    store = open_run(asked.run)
    detector.check(store)
    name, labels = _labels(asked, store, provenance)
    rows = list(_rows(store, detector, provenance, learnt, labels))
    _write(asked.out, rows)
    for warning in filter(None, (_warning(rows, provenance, learnt), _without(rows))):
        ERR.print(f"Warning: {warning}")
    if asked.out is not None:
        OUT.print(_summary(asked.out, detector, rows, name))


def _labels(
    asked: Asked, store: TraceStore, provenance: Provenance | None
) -> tuple[str | None, dict[tuple[str, int], int | None]]:
    """Labels by key: those asked for, or those it was trained with if the run has them."""
    from hallutrace import labels

    if asked.label is not None:
        return asked.label, labels.read(store.folder, asked.label)
    if provenance is not None and provenance.label in store.labels():
        return provenance.label, labels.read(store.folder, provenance.label)
    return None, {}


def _rows(
    store: TraceStore,
    detector: Detector,
    provenance: Provenance | None,
    learnt: Learnt | None,
    labels: dict[tuple[str, int], int | None],
) -> Iterator[dict[str, Any]]:
    """A row a trace, in the run's order; features are kept for a part of them at a time."""
    import numpy as np

    from hallutrace.detect import Examples

    same = provenance is not None and provenance.fingerprint == store.manifest.fingerprint
    curve = None if provenance is None else provenance.curve
    for begin in followed(range(0, len(store), AT_ONCE), "scoring"):
        places = np.arange(begin, min(begin + AT_ONCE, len(store)))
        some = Examples(store, places, np.zeros(len(places), np.int8))
        scores = _scores(detector, some)
        for key, group, score in zip(some.keys, some.groups, scores, strict=True):
            risk = None if curve is None or score is None else float(curve([score])[0])
            yield {
                "id": key[0],
                "sample": key[1],
                "score": score,
                "risk": risk,
                "label": labels.get(key),
                "part": "" if learnt is None else _part(learnt, key, group, same),
            }


def _scores(detector: Detector, some: Examples) -> list[float | None]:
    """A score of each; None where numbers of a trace are not finite, so that there is none."""
    try:
        scores = detector.scores(some).tolist()
    except NonFiniteError:
        if len(some) == 1:
            return [None]
        # One at a time: what is refused costs the trace alone.
        return [score for at in range(len(some)) for score in _scores(detector, some.take([at]))]
    return [score if math.isfinite(score) else None for score in scores]


def _part(learnt: Learnt, key: tuple[str, int], group: str, is_same_run: bool) -> str:
    """What of the training a trace was in."""
    if is_same_run and key in learnt.train:
        return "train"
    if is_same_run and key in learnt.validation:
        return "validation"
    return "group" if group in learnt.groups else ""


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
    """Which traces have no score."""
    from hallutrace.store.finite import NON_FINITE_FIX

    bare = [row for row in rows if row["score"] is None]
    if not bare:
        return None
    named = "; ".join(f"{row['id']!r}, sample {row['sample']}" for row in bare[:3])
    return (
        f"{len(bare):,} of {len(rows):,} traces have no score, for numbers in them are NaN or "
        f"infinite, first {named} - {NON_FINITE_FIX}"
    )


def _warning(
    rows: list[dict[str, Any]], provenance: Provenance | None, learnt: Learnt | None
) -> str | None:
    """What the scores may not be used for."""
    if provenance is None or learnt is None:
        return "nothing tells what the detector was trained on, so it may have seen these traces"
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
