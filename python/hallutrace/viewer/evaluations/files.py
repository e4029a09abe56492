"""What ``hallutrace evaluate`` wrote, read once and checked: its figures, and the scores of traces.

``evaluation.json`` has the figures. ``scores.csv`` has, for each trace that was tested, the score
by each detector, out of fold: by a model whose training and validation parts did not have it.
"""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from hallutrace.atomic_files import storage_errors
from hallutrace.canonical_json import to_utf8
from hallutrace.errors import DamagedError, NotInRunError
from hallutrace.escaping import cell, csv_cell
from hallutrace.option_names import wording
from hallutrace.viewer.evaluations.content import EvaluationContent, check_rows

EVALUATION_FILE, SCORES_FILE = "evaluation.json", "scores.csv"
_FIRST_COLUMNS = ["id", "sample", "label", "fold"]
_SCHEMA = 1

Key = tuple[str, int]
"""Question id, and number of the sample from 0."""


@dataclass(frozen=True)
class ScoreTable:
    """What ``scores.csv`` holds.

    Attributes:
        keys: of the traces, as the file has them.
        labels: int8 [traces], 1 hallucinated, 0 right.
        folds: int32 [traces], the fold whose test part each trace was in.
        series: float64 [series, traces] by label of the row.
    """

    keys: list[Key]
    labels: NDArray[np.int8]
    folds: NDArray[np.int32]
    series: dict[str, NDArray[np.float64]]
    _places: dict[Key, int] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        self._places.update((key, place) for place, key in enumerate(self.keys))

    def places(self, keys: Sequence[Key]) -> NDArray[np.int64]:
        """Row of the table of each trace of a run, int64 [keys]; -1 where it was not tested."""
        found = (self._places.get((_as_written(id_), sample), -1) for id_, sample in keys)
        return np.fromiter(found, np.int64, len(keys))

    def mean(self, label: str) -> NDArray[np.float64]:
        """Scores of a row, mean over its seeds, float64 [traces]."""
        return np.asarray(self.series[label].mean(axis=0))


@dataclass(frozen=True)
class EvaluationFiles:
    """An evaluation on the disk.

    Attributes:
        folder: that it lies in.
        json: all of ``evaluation.json``.
        content: what a page reads of it, checked.

    Examples:
        >>> EvaluationFiles.read(folder)
        Traceback (most recent call last):
        hallutrace.errors.NotInRunError: Expected an evaluation in ..., got no evaluation.json - ...
    """

    folder: Path
    json: dict[str, Any]
    content: EvaluationContent

    @classmethod
    def read(cls, folder: Path) -> EvaluationFiles:
        """Reads ``evaluation.json``; scores are read when they are first used.

        Raises:
            NotInRunError: there is none.
            DamagedError: it is damaged; the message names the first field that is wrong.
            StorageError: it cannot be read.
        """
        path = folder / EVALUATION_FILE
        with storage_errors(f"read {path}", "check the file and its permissions"):
            try:
                text = path.read_bytes()
            except (FileNotFoundError, NotADirectoryError):
                raise NotInRunError(
                    f"Expected an evaluation in {folder}, got no {EVALUATION_FILE} - is "
                    "`hallutrace evaluate` done?"
                ) from None
        try:
            found = json.loads(text)
            if not isinstance(found, dict) or found.get("schema") != _SCHEMA:
                raise ValueError(f"no JSON object of schema {_SCHEMA}")
            content = EvaluationContent.model_validate(found)
            check_rows(content)
        except (ValueError, RecursionError) as error:
            raise _damaged(path, _what(error)) from None
        return cls(folder, found, content)

    @cached_property
    def scores(self) -> ScoreTable:
        """The scores of all traces that were tested.

        Raises:
            DamagedError: ``scores.csv`` is missing or damaged.
            StorageError: it cannot be read.
        """
        path = self.folder / SCORES_FILE
        with storage_errors(f"read {path}", "check the file and its permissions"):
            try:
                with path.open(encoding="utf-8", newline="") as file, _long_fields():
                    return _parsed(csv.reader(file), self.content)
            except FileNotFoundError:
                raise _damaged(path, "no such file") from None
            except (ValueError, csv.Error) as error:
                raise _damaged(path, _what(error)) from None

    def aligned(self, keys: Sequence[Key]) -> dict[str, NDArray[np.float32]]:
        """Scores in the order of a run, mean over seeds.

        Args:
            keys: of the run's traces.

        Returns:
            float32 [keys] by label of the row; NaN where a trace was not tested.

        Raises:
            DamagedError: as :attr:`scores`.
        """
        table = self.scores
        places = table.places(keys)
        return {
            label: np.where(places >= 0, table.mean(label)[places], np.nan).astype(np.float32)
            for label in table.series
        }


def _parsed(rows: Iterator[list[str]], content: EvaluationContent) -> ScoreTable:
    """The table of scores.

    Raises:
        ValueError: it does not go with the evaluation.
    """
    columns = [(row, name) for row in content.done for name in row.columns]
    expected = [*_FIRST_COLUMNS, *(name for _, name in columns)]
    head = next(rows, [])
    if head != expected:
        missing = next((name for name in expected if name not in head), None)
        raise ValueError(f"no column {missing!r}" if missing else "other columns")
    keys: list[Key] = []
    facts: list[tuple[int, int]] = []
    values: list[NDArray[np.float64]] = []
    for number, one in enumerate(rows, start=1):
        if len(one) != len(expected):
            raise ValueError(f"{len(one)} cells in row {number} instead of {len(expected)}")
        keys.append((one[0], int(one[1])))
        facts.append((int(one[2]), int(one[3])))
        values.append(np.array(one[4:], np.float64))
    labels, folds = np.array(facts, np.int64).reshape(-1, 2).T
    scores = np.array(values).reshape(len(keys), len(columns)).T
    _check_values(content, keys, labels, folds, scores)
    series = {}
    for row in content.done:
        series[row.label] = scores[[i for i, (one, _) in enumerate(columns) if one is row]]
    return ScoreTable(keys, labels.astype(np.int8), folds.astype(np.int32), series)


def _check_values(
    content: EvaluationContent,
    keys: list[Key],
    labels: NDArray[np.int64],
    folds: NDArray[np.int64],
    scores: NDArray[np.float64],
) -> None:
    counts = content.run.counts
    found = (len(set(keys)), int((labels == 1).sum()), int((labels == 0).sum()))
    expected = (counts.traces, counts.hallucinated, counts.right)
    if found != expected or len(keys) != counts.traces:
        raise ValueError(
            f"{len(keys)} traces, {found[1]} hallucinated, instead of {expected[0]} and "
            f"{expected[1]}"
        )
    if not ((folds >= 0) & (folds < content.protocol.folds)).all():
        raise ValueError("folds that the evaluation does not have")
    if not np.isfinite(scores).all():
        raise ValueError("scores that are not finite")


def _as_written(id_: str) -> str:
    """An id as ``scores.csv`` has it."""
    return to_utf8(str(csv_cell(id_))).decode()


@contextmanager
def _long_fields() -> Iterator[None]:
    """Within it, cells of CSV may be of any length: ids are other people's text."""
    before = csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _what(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f"`{'.'.join(map(str, first['loc']))}`: {first['msg']}"
    if isinstance(error, json.JSONDecodeError | UnicodeDecodeError | RecursionError):
        return "something else"
    return cell(str(error))


def _damaged(path: Path, what: str) -> DamagedError:
    return DamagedError(
        f"Expected what `hallutrace evaluate` wrote, got {what} in {path} - restore it from a "
        f"copy, or {wording('evaluate again', 'evaluate again with --overwrite')}"
    )
