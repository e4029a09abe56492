"""All traces of a run as columns: what they were asked, how long and how sure the answers are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hallutrace.errors import DamagedError
from hallutrace.splits import numbered
from hallutrace.store.trace import Trace
from hallutrace.viewer.evaluations.scores import evaluation_scores
from hallutrace.viewer.slices.text_kinds import answer_type, first_word, question_type
from hallutrace.viewer.viewed_run import ViewedRun

QUESTION_CHARACTERS, ANSWER_CHARACTERS = 160, 240
UNREADABLE = "unreadable"
"""Finish reason of a trace that could not be read."""


@dataclass(frozen=True)
class TraceColumns:
    """What the shards say of each trace, in the order of the run.

    Attributes:
        questions: shortened texts.
        answers: shortened texts.
        groups: names.
        prompt_tokens: uint32 [traces].
        answer_tokens: uint32 [traces], end-of-sequence included.
        mean_logprob: float32 [traces], nats, at temperature 1; NaN without answer tokens.
        min_logprob: float32 [traces], the smallest of an answer's tokens, nats.
        mean_entropy: float32 [traces], of the next-token distributions, nats.
        finish_reasons: texts.
        first_words: of the questions, see :mod:`hallutrace.viewer.slices.text_kinds`.
        question_types: as there.
        answer_types: as there, of the first right answer, or of the answer where none is known.
        damaged: key and message of each trace that could not be read; its texts are empty, its
            group is its own, and its numbers are 0 or NaN.
    """

    questions: list[str]
    answers: list[str]
    groups: list[str]
    prompt_tokens: NDArray[np.uint32]
    answer_tokens: NDArray[np.uint32]
    mean_logprob: NDArray[np.float32]
    min_logprob: NDArray[np.float32]
    mean_entropy: NDArray[np.float32]
    finish_reasons: list[str]
    first_words: list[str]
    question_types: list[str]
    answer_types: list[str]
    damaged: list[tuple[str, str]]


@lru_cache(maxsize=4)
def trace_columns(viewed: ViewedRun) -> TraceColumns:
    """Reads text, log-probabilities and entropies of all traces, once for each viewed run.

    Args:
        viewed: the run.

    Examples:
        >>> columns = trace_columns(ViewedRun(hallutrace.open(run)))
        >>> len(columns.questions), columns.answer_tokens.dtype
        (8, dtype('uint32'))
    """
    rows: list[tuple[Any, ...]] = []
    damaged: list[tuple[str, str]] = []
    for position, key in enumerate(viewed.key_texts):
        try:
            rows.append(_row(viewed.store[position]))
        except DamagedError as error:
            damaged.append((key, str(error)))
            rows.append(("", "", f"\0{key}", 0, 0, np.nan, np.nan, np.nan, UNREADABLE, "", "", ""))
    columns: list[list[Any]] = [[row[at] for row in rows] for at in range(12)]
    return TraceColumns(
        questions=columns[0],
        answers=columns[1],
        groups=columns[2],
        prompt_tokens=np.array(columns[3], np.uint32),
        answer_tokens=np.array(columns[4], np.uint32),
        mean_logprob=np.array(columns[5], np.float32),
        min_logprob=np.array(columns[6], np.float32),
        mean_entropy=np.array(columns[7], np.float32),
        finish_reasons=columns[8],
        first_words=columns[9],
        question_types=columns[10],
        answer_types=columns[11],
        damaged=damaged,
    )


def _row(trace: Trace) -> tuple[Any, ...]:
    """The members of :class:`TraceColumns` for one trace."""
    logprob = trace.logprob.astype(np.float64)
    entropy = trace.token_entropy.astype(np.float64)
    has_answer = len(logprob) > 0
    return (
        _shortened(trace.question, QUESTION_CHARACTERS),
        _shortened(trace.answer, ANSWER_CHARACTERS),
        trace.group,
        trace.prompt_length,
        len(logprob),
        logprob.mean() if has_answer else np.nan,
        logprob.min() if has_answer else np.nan,
        entropy.mean() if has_answer else np.nan,
        trace.finish_reason,
        first_word(trace.question),
        question_type(trace.question),
        answer_type(next(iter(trace.references), trace.answer)),
    )


def traces_data(viewed: ViewedRun) -> dict[str, Any]:
    """The payload ``traces``: a column for each thing that is known of all traces.

    Returns:
        See :func:`trace_list`.

    Examples:
        >>> found = traces_data(ViewedRun(hallutrace.open(run)))
        >>> found["answer_tokens"].dtype, len(found["labels"]["contains"])
        (dtype('uint32'), 8)
    """
    return trace_list(viewed)


def trace_list(viewed: ViewedRun, positions: Sequence[int] | None = None) -> dict[str, Any]:
    """Columns of all traces, or of some of them.

    Args:
        viewed: the run.
        positions: in the run, of the traces to list; None for all.

    Returns:
        ``total``: number of traces in the run; ``position`` uint32 [rows] in the run; ``key``,
        ``question``, ``answer``: texts, the latter two shortened; ``group`` uint32 [rows], numbers
        of the groups in the order of their names, and ``groups``, how many there are in the run;
        ``sample`` and ``index`` (row in the source) uint32; ``prompt_tokens``, ``answer_tokens``
        uint32; ``mean_logprob``, ``min_logprob``, ``mean_entropy`` float32, nats;
        ``finish_reason`` uint8, index into ``finish_reasons``; ``labels`` by protocol int8, -1
        none; ``scores`` by label of the detector float32, mean over seeds, NaN none; ``damaged``:
        ``key`` and ``message`` of the traces that cannot be read.

    Raises:
        DamagedError: a label file or the evaluation is damaged.
        InputError: the evaluation is of another run.
    """
    columns, total = trace_columns(viewed), len(viewed.store)
    chosen = np.arange(total) if positions is None else np.asarray(positions, np.int64)
    at = chosen.tolist()
    keys = viewed.store.keys()
    group = numbered(columns.groups)
    reasons, reason = _named(columns.finish_reasons)
    return {
        "total": total,
        "position": chosen.astype(np.uint32),
        "key": [viewed.key_texts[one] for one in at],
        "question": [columns.questions[one] for one in at],
        "answer": [columns.answers[one] for one in at],
        "group": group[chosen].astype(np.uint32),
        "groups": len(set(columns.groups)),
        "sample": np.array([keys[one][1] for one in at], np.uint32),
        "index": np.array([viewed.store.index_of(one) for one in at], np.uint32),
        "prompt_tokens": columns.prompt_tokens[chosen],
        "answer_tokens": columns.answer_tokens[chosen],
        "mean_logprob": columns.mean_logprob[chosen],
        "min_logprob": columns.min_logprob[chosen],
        "mean_entropy": columns.mean_entropy[chosen],
        "finish_reason": reason[chosen],
        "finish_reasons": reasons,
        "labels": {name: viewed.label_values(name)[chosen] for name in viewed.labels},
        "scores": {
            label: scores[chosen].astype(np.float32) for label, scores in _scores(viewed).items()
        },
        "damaged": [{"key": key, "message": message} for key, message in columns.damaged],
    }


def _scores(viewed: ViewedRun) -> dict[str, NDArray[np.float64]]:
    """Mean scores by label of the detector; none where no evaluation is shown."""
    return {} if viewed.evaluation is None else evaluation_scores(viewed).means()


def _named(texts: Sequence[str]) -> tuple[list[str], NDArray[np.uint8]]:
    """Names, and the index of each text among them; a byte holds 255 and the word `other`."""
    names = sorted(set(texts))
    names = names if len(names) <= 256 else [*names[:255], "other"]
    index = {name: at for at, name in enumerate(names)}
    return names, np.array([index.get(text, len(names) - 1) for text in texts], np.uint8)


def _shortened(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"
