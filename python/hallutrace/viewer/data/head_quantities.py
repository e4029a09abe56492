"""What is shown of each head: one figure a trace, made of the trace's exact marginals.

A figure is a mean over the answer rows (the rows P-1 .. N-1, which produced the answer and looked
back at it), or over tokens; :data:`QUANTITIES` says which. They come from attention before pruning.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hallutrace.detect.features import answer_rows
from hallutrace.store.trace import Trace

Heads = NDArray[np.float32]
"""Float32 [layers, heads]; of value heads where the quantity belongs to those."""

_SEGMENTS_WITH_CONTEXT = 5  # first token, prompt before, context, prompt after, answer


@dataclass(frozen=True)
class HeadQuantity:
    """A figure of each head of a trace.

    Attributes:
        title: what it is called.
        unit: ``nats``, ``weight``, or empty.
        over: what it is the mean of, to end a sentence with.
        of: computes it; None where the trace does not have it.
        by_value_head: whether it belongs to value heads instead of query heads.
    """

    title: str
    unit: str
    over: str
    of: Callable[[Trace], Heads | None]
    by_value_head: bool = False


def _rows(trace: Trace, name: str) -> NDArray[np.float32]:
    """A marginal of the answer rows, float32 [layers, heads, A + 1, ...]."""
    found: NDArray[np.float32] = getattr(trace.marginals, name)
    return answer_rows(found, len(trace.logprob))


def _mean(rows: NDArray[np.float32]) -> Heads:
    return np.asarray(rows.mean(axis=2, dtype=np.float64), np.float32)


def _row_mean(name: str) -> Callable[[Trace], Heads]:
    return lambda trace: _mean(_rows(trace, name))


def _rough(trace: Trace) -> Heads:
    """The norm over all segments, mean over the answer rows."""
    squares = np.square(_rows(trace, "rough"), dtype=np.float64).sum(axis=3)
    return np.asarray(np.sqrt(squares).mean(axis=2), np.float32)


def _received(trace: Trace) -> Heads:
    return _mean(trace.marginals.received_mean[:, :, 1:])


def _mass_first(trace: Trace) -> Heads:
    return _mean(_rows(trace, "mass")[..., 0])


def _mass_answer(trace: Trace) -> Heads:
    return _mean(_rows(trace, "mass")[..., -1])


def _mass_question(trace: Trace) -> Heads:
    """The prompt but its first token and its context."""
    mass = _rows(trace, "mass")
    if mass.shape[3] < _SEGMENTS_WITH_CONTEXT:
        return _mean(mass[..., 1:-1].sum(axis=3))
    return _mean(mass[..., 1] + mass[..., 3])


def _mass_context(trace: Trace) -> Heads | None:
    mass = _rows(trace, "mass")
    return _mean(mass[..., 2]) if mass.shape[3] >= _SEGMENTS_WITH_CONTEXT else None


_ANSWER_ROWS = "mean over the answer rows"
_TOKENS = "mean over all tokens"

QUANTITIES: dict[str, HeadQuantity] = {
    "entropy": HeadQuantity("Attention entropy", "nats", _ANSWER_ROWS, _row_mean("entropy")),
    "previous": HeadQuantity(
        "Attention to the previous token", "weight", _ANSWER_ROWS, _row_mean("previous")
    ),
    "diagonal": HeadQuantity(
        "Attention to the token itself", "weight", _ANSWER_ROWS, _row_mean("diagonal")
    ),
    "received": HeadQuantity(
        "Attention received from later tokens",
        "weight",
        "mean over all tokens but the first, of the mean over the rows after each",
        _received,
    ),
    "mass-first": HeadQuantity(
        "Attention mass on the first token", "share", _ANSWER_ROWS, _mass_first
    ),
    "mass-question": HeadQuantity(
        "Attention mass on the question",
        "share",
        f"{_ANSWER_ROWS}; the question is the prompt without its first token and its context",
        _mass_question,
    ),
    "mass-context": HeadQuantity(
        "Attention mass on the context", "share", _ANSWER_ROWS, _mass_context
    ),
    "mass-answer": HeadQuantity(
        "Attention mass on the answer",
        "share",
        f"{_ANSWER_ROWS}; each row's own token is in it, but for the row before the answer",
        _mass_answer,
    ),
    "square": HeadQuantity(
        "Sum of squared attention weights", "", _ANSWER_ROWS, _row_mean("square")
    ),
    "rough": HeadQuantity("Second differences of the weights (norm)", "", _ANSWER_ROWS, _rough),
    "value-norm": HeadQuantity(
        "Norm of value vectors",
        "",
        _TOKENS,
        lambda trace: _mean(trace.marginals.value_norm),
        by_value_head=True,
    ),
}
"""By the name that an address or an option has."""
