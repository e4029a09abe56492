"""A report as a page, as JSON with everything, and as CSV with a row for each trace."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from typing import Any

import numpy as np

from hallutrace.escaping import visible
from hallutrace.viewer import page as pages
from hallutrace.viewer.payload import unpack
from hallutrace.viewer.report.content import Report

_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_TEXTS = ("key", "question", "answer")
_NUMBERS = ("sample", "index", "group", "prompt_tokens", "answer_tokens")
_FLOATS = ("mean_logprob", "min_logprob", "mean_entropy")


FOOTER = (
    f"{pages.FOOTER} Whether attention tells anything about hallucination is what the controls "
    "with shuffled and without edges show."
)


def to_html(report: Report) -> Iterator[bytes]:
    r"""The page, in pieces.

    Args:
        report: of a run.

    Examples:
        >>> from hallutrace.viewer.viewed_run import ViewedRun
        >>> next(to_html(Report(ViewedRun(hallutrace.open(run)))))
        b'<!doctype html>\n'
    """
    title = report.viewed.store.folder.resolve().name
    settings = {"title": title, "served": False, "footer": FOOTER}
    for piece in pages.page(
        settings, report.payloads(), lambda: {"notes": report.notes, "missing": report.missing}
    ):
        yield piece.encode("utf-8")


def to_json(report: Report) -> Iterator[bytes]:
    """Everything that the page carries, as JSON, in pieces.

    Args:
        report: of a run.

    Returns:
        ``data``, the payloads by key with arrays as nested lists, and ``notes``, what is left
        out. Numbers that are no number are null.

    Examples:
        >>> from hallutrace.viewer.viewed_run import ViewedRun
        >>> text = b"".join(to_json(Report(ViewedRun(hallutrace.open(run)))))
        >>> json.loads(text)["data"]["run"]["traces"]
        8
    """
    yield b'{"data": {'
    for number, (key, payload) in enumerate(report.payloads()):
        value = json.dumps(_plain(unpack(payload)), ensure_ascii=False, allow_nan=False)
        yield f"{',' if number else ''}\n{json.dumps(key)}: {value}".encode("utf-8", "replace")
    yield f'\n}}, "notes": {json.dumps(report.notes)}}}\n'.encode()


def to_csv(report: Report) -> Iterator[bytes]:
    """The traces that the page lists, as CSV with a row for each, in pieces.

    Text that a spreadsheet would run as a formula gets an apostrophe before it. Characters that
    cannot be seen are written as escapes, so that no text steers the terminal that shows the file.

    Args:
        report: of a run.

    Returns:
        Key, question and answer (shortened), numbers, ``finish_reason``, a column
        ``label.PROTOCOL`` (1 hallucinated, 0 right, empty neither) for each protocol, and one
        ``score.DETECTOR`` for each detector of the evaluation (empty where it has none).
    """
    traces = report.listed()
    labels, scores = traces["labels"], traces["scores"]
    columns = [*_TEXTS, *_NUMBERS, *_FLOATS, "finish_reason"]
    yield _line(
        [
            *columns,
            *(f"label.{visible(one)}" for one in labels),
            *(f"score.{visible(one)}" for one in scores),
        ]
    )
    for at in range(len(traces["key"])):
        yield _line(
            [
                *(_text(traces[name][at]) for name in _TEXTS),
                *(int(traces[name][at]) for name in _NUMBERS),
                *(_number(traces[name][at]) for name in _FLOATS),
                traces["finish_reasons"][traces["finish_reason"][at]],
                *("" if values[at] < 0 else int(values[at]) for values in labels.values()),
                *(_number(values[at]) for values in scores.values()),
            ]
        )


def _line(cells: list[Any]) -> bytes:
    file = io.StringIO()
    csv.writer(file, lineterminator="\n").writerow(cells)
    return file.getvalue().encode("utf-8", "replace")


def _text(value: str) -> str:
    shown = visible(value)
    return f"'{shown}" if shown.startswith(_FORMULA) else shown


def _number(value: Any) -> str:
    """The shortest text that reads as the same float32; empty for no number."""
    return str(np.float32(value)) if np.isfinite(value) else ""


def _plain(value: Any) -> Any:
    """With lists for arrays, and null for what is no number."""
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_plain(one) for one in value]
    if isinstance(value, np.ndarray):
        if value.dtype.kind == "f":
            exact = value.astype(object)
            exact[~np.isfinite(value)] = None
            return exact.tolist()
        return value.tolist()
    return value
