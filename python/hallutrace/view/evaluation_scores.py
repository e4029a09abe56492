"""The scores that an evaluation gave to the traces of a run, from its ``scores.csv``."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hallutrace.errors import DamagedError, InputError, NotInRunError
from hallutrace.escaping import csv_cell
from hallutrace.view.viewed_run import NO_LABEL, ViewedRun

SCORES_FILE = "scores.csv"
_FIRST_COLUMNS = ["id", "sample", "label", "fold"]
_SEED = " seed="


@dataclass(frozen=True)
class EvaluationScores:
    """Scores of the traces of a run, in the order of the run.

    Attributes:
        labels: int8 [traces], those that the evaluation used: 1 hallucinated, 0 right, -1 where it
            left a trace out.
        folds: int64 [traces], the fold whose test part has the trace; -1 where none has.
        series: by label of the detector, float64 [seeds, traces]; NaN where none was given.
    """

    labels: NDArray[np.int8]
    folds: NDArray[np.int64]
    series: dict[str, NDArray[np.float64]]

    def means(self) -> dict[str, NDArray[np.float64]]:
        """Mean over the seeds by label of the detector, float64 [traces]."""
        return {label: rows.mean(axis=0) for label, rows in self.series.items()}


def evaluation_scores(viewed: ViewedRun) -> EvaluationScores:
    """Reads the scores.

    Args:
        viewed: the run, with its evaluation.

    Raises:
        NotInRunError: no evaluation is shown, or it has no scores.
        InputError: the evaluation is of another run.
        DamagedError: the file is damaged; the message names the line.

    Examples:
        >>> evaluation_scores(ViewedRun(hallutrace.open(run)))
        Traceback (most recent call last):
            ...
        hallutrace.errors.NotInRunError: No evaluation is shown: ...
    """
    content = viewed.evaluation_json
    assert viewed.evaluation is not None  # it has content
    found = content["run"].get("fingerprint")
    if found != viewed.store.manifest.fingerprint:
        raise InputError(
            f"Expected an evaluation of the run {viewed.store.folder} (fingerprint "
            f"{viewed.store.manifest.fingerprint}), got one of {content['run'].get('name')!r} "
            f"({found}) in {viewed.evaluation} - give another --evaluation"
        )
    path = viewed.evaluation / SCORES_FILE
    detectors = [one["label"] for one in content["detectors"]]
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return _read(csv.reader(file), path, viewed, detectors)
    except FileNotFoundError:
        raise NotInRunError(
            f"Expected {path}, got no such file - `hallutrace evaluate` makes it again"
        ) from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise DamagedError(f"Expected CSV in {path}, got {error}") from None


def _read(
    lines: Iterator[list[str]], path: Path, viewed: ViewedRun, detectors: list[str]
) -> EvaluationScores:
    columns = next(lines, [])
    if columns[:4] != _FIRST_COLUMNS:
        raise DamagedError(f"Expected the scores of an evaluation in {path}, got another header")
    keys = viewed.store.keys()
    position = {(csv_cell(id_), str(sample)): at for at, (id_, sample) in enumerate(keys)}
    labels, folds = np.full(len(keys), NO_LABEL, np.int8), np.full(len(keys), -1)
    scores = np.full((len(columns) - 4, len(keys)), np.nan)
    for number, line in enumerate(lines, start=2):
        try:
            at = position[line[0], line[1]]
            labels[at], folds[at] = int(line[2]), int(line[3])
            scores[:, at] = [float(one) for one in line[4:]]
        except KeyError:
            raise InputError(
                f"Expected scores of traces of {viewed.store.folder}, got those of {line[0]!r}, "
                f"sample {line[1]}, in {path} - give the evaluation of this run"
            ) from None
        except (ValueError, IndexError) as error:
            raise DamagedError(
                f"Expected a row of scores, got {error} in {path}, line {number} - `hallutrace "
                "evaluate` makes it again"
            ) from None
    series: dict[str, list[Any]] = {}
    for column, row in zip(columns[4:], scores, strict=True):
        label = column if column in detectors else column.rpartition(_SEED)[0]
        series.setdefault(label, []).append(row)
    return EvaluationScores(labels, folds, {name: np.stack(rows) for name, rows in series.items()})
