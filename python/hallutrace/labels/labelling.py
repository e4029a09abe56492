"""Labelling of a run, by a judge or from a file."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hallutrace.errors import DamagedError, InputError
from hallutrace.label_protocols import Judge
from hallutrace.labels.from_file import digest_of, read_label_file
from hallutrace.labels.label_checks import check_judged, check_kept, check_parameters
from hallutrace.labels.registry import TraceProtocol
from hallutrace.labels.thresholds import check_threshold, judge_of
from hallutrace.normalization import DEFAULT
from hallutrace.store.label_files import (
    Key,
    TraceLabel,
    counts_of,
    path_of,
    read_rows,
    write_labels,
)
from hallutrace.store.reader import TraceStore, open_run
from hallutrace.store.trace import Trace

Follow = Callable[[Iterator[Trace], int], Iterable[Trace]]
"""Yields the traces that it is given; it also receives their number, for a progress bar."""


@dataclass(frozen=True)
class LabelSummary:
    """Result of labelling a run.

    Attributes:
        name: of the labels.
        path: of their file.
        parameters: how they were made.
        traces: of the run.
        hallucinated: label 1.
        right: label 0.
        dropped: label null with a score: ambiguous.
        unjudged: label null without a score.
        without_references: those of them without a reference; 0 for labels from a file.
        new: traces that these labels did not have before.
        is_changed: whether anything was written.
    """

    name: str
    path: Path
    parameters: dict[str, Any]
    traces: int
    hallucinated: int
    right: int
    dropped: int
    unjudged: int
    without_references: int
    new: int
    is_changed: bool

    def to_json(self) -> dict[str, Any]:
        """The fields by name."""
        return {**asdict(self), "path": str(self.path)}


def label(
    run: str | Path,
    by: str | Judge = "contains",
    *,
    normalize: str = DEFAULT,
    name: str | None = None,
    threshold: float | None = None,
    drop: tuple[float, float] | None = None,
    overwrite: bool = False,
    follow: Follow | None = None,
) -> LabelSummary:
    """Labels the traces of a run by judging each answer against its references.

    After a run has grown, the same call labels the new traces. All traces are judged again, and a
    label that would change is an error.

    Args:
        run: its folder.
        by: ``exact``, ``contains``, ``f1``, ``rouge-l``, the name of a registered protocol (see
            :func:`hallutrace.labels.register`), or a judge of your own.
        normalize: how answers and references are made comparable: ``unicode``, for all scripts and
            their typography, or ``triviaqa``, the rule of its evaluation script; see
            :mod:`hallutrace.normalization`. It cannot be given with a judge of your own.
        name: of the labels; by default that of the protocol, with ``-triviaqa`` for that
            normalisation.
        threshold: an answer is right (0) if its score is at least that, else hallucinated (1);
            the judge's own unless given.
        drop: lowest and highest score that are neither: the label is null, the score is kept.
        overwrite: replace labels of that name that were made in another way.
        follow: yields the traces that it is given with their number, as a progress bar does.

    Returns:
        Counts of traces. A trace without references, or with none that is left after
        normalisation, has null as label and score, and counts as unjudged.

    Raises:
        InputError: an unknown protocol or normalisation, a threshold or range that makes no sense,
            a run without traces or of which none can be judged, or other labels of that name.
        DamagedError: a trace or existing labels that are damaged.
        StorageError: the labels cannot be written.

    Examples:
        >>> summary = label(run, "f1", threshold=0.6)
        >>> summary.hallucinated + summary.right == summary.traces == 8
        True
    """
    judge, label_name = judge_of(by, normalize)
    limit = check_threshold(judge, threshold, drop)
    parameters = {
        "by": judge.name,
        **judge.facts,
        "threshold": limit,
        "drop": None if drop is None else list(map(float, drop)),
    }
    name = label_name if name is None else name
    with _store(run, name) as store:
        check_parameters(store.folder, name, parameters, overwrite)
        rows: dict[Key, TraceLabel] = {}
        without_references = 0
        traces = iter(store)
        for key, trace in zip(
            store.keys(), traces if follow is None else follow(traces, len(store)), strict=True
        ):
            references = _texts(trace, "references")
            without_references += not references
            rows[key] = _label_of(_score(judge, trace, references), limit, drop)
        check_judged(store, judge, rows, without_references)
        return _save(store, name, rows, parameters, None, overwrite, without_references)


def label_from(
    run: str | Path, file: str | Path, *, name: str | None = None, overwrite: bool = False
) -> LabelSummary:
    r"""Takes the labels of a person or a judge from a file.

    After the file has grown, the same call labels the traces that had no label.

    Args:
        run: its folder.
        file: .jsonl, .json, .csv, .tsv or .parquet with ``id``, ``label``, and if there,
            ``sample``, ``score``.
        name: of the labels; the file's without its extension unless given.
        overwrite: replace labels of that name that are others.

    Returns:
        Counts of traces. Traces that the file does not have get null, and count as unjudged.

    Raises:
        InputError: a file of another format, with ids that the run does not have or with
            contradicting rows; a run without traces; or other labels of that name.
        DamagedError: existing labels that are damaged.
        StorageError: a file that cannot be read or written.

    Examples:
        >>> _ = Path("anna.csv").write_text(f"id,label\n{hallutrace.open(run)[0].id},1\n")
        >>> label_from(run, "anna.csv").hallucinated
        1
    """
    path = Path(file)
    name = path.stem if name is None else name
    parameters = {"by": "file"}
    with _store(run, name) as store:
        check_parameters(store.folder, name, parameters, overwrite)
        keys = store.keys()
        given = read_label_file(path, keys)
        rows = {key: given.get(key, TraceLabel(None, None)) for key in keys}
        origin = {"file": path.name, "sha256": digest_of(path)}
        return _save(store, name, rows, parameters, origin, overwrite, 0)


def _store(run: str | Path, name: str) -> TraceStore:
    store = open_run(run)
    path_of(store.folder, name)
    if not len(store):
        raise InputError(
            f"Expected traces to label, got none in {run} - let `hallutrace extract` finish a shard"
        )
    return store


def _texts(trace: Trace, field: str) -> list[str]:
    found = trace.meta.get(field)
    if not isinstance(found, list) or not all(isinstance(item, str) for item in found):
        raise _other(trace, field, "a list of texts")
    return found


def _text(trace: Trace, field: str) -> str:
    found = trace.meta.get(field)
    if not isinstance(found, str):
        raise _other(trace, field, "a text")
    return found


def _other(trace: Trace, field: str, expected: str) -> DamagedError:
    return DamagedError(
        f"Expected {expected} as `{field}`, got something else in the trace {trace.id!r}, sample "
        f"{trace.sample} - restore its shard from a copy"
    )


def _score(judge: Judge | TraceProtocol, trace: Trace, references: list[str]) -> float | None:
    if isinstance(judge, TraceProtocol):
        return judge(trace)
    return judge.score(_text(trace, "question"), _text(trace, "answer"), references)


def _label_of(score: float | None, limit: float, drop: tuple[float, float] | None) -> TraceLabel:
    if score is None:
        return TraceLabel(None, None)
    if not math.isfinite(score):
        raise InputError(f"Expected a finite score from the judge, got {score} - fix the judge")
    if drop is not None and drop[0] <= score <= drop[1]:
        return TraceLabel(None, float(score))
    return TraceLabel(int(score < limit), float(score))


def _save(
    store: TraceStore,
    name: str,
    rows: dict[Key, TraceLabel],
    parameters: dict[str, Any],
    origin: dict[str, Any] | None,
    overwrite: bool,
    without_references: int,
) -> LabelSummary:
    """Writes the labels, unless other labels would be lost."""
    before: dict[Key, TraceLabel] = {}
    path = path_of(store.folder, name)
    if path.is_file() and not overwrite:
        before = read_rows(store.folder, name)
        check_kept(path, before, rows, may_fill=origin is not None)
    new = sum(key not in before for key in rows)
    is_changed = write_labels(store.folder, name, rows, parameters, origin)
    counts = counts_of(rows.values())
    return LabelSummary(
        name=name,
        path=path,
        parameters=parameters,
        **counts,
        without_references=without_references,
        new=new,
        is_changed=is_changed,
    )
