"""What several detectors read of a trace: rows, order statistics and hidden vectors."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from hallutrace.detect.options import HiddenVector
from hallutrace.errors import InputError
from hallutrace.option_names import parameter
from hallutrace.store.finite_numbers import require_finite
from hallutrace.store.trace import Trace

Number = TypeVar("Number", bound=np.generic)


def answer_rows(rows: NDArray[Number], answer: int) -> NDArray[Number]:
    """The answer rows P-1 .. N-1 of a marginal that may be kept for all rows.

    Args:
        rows: [layers, heads, R, ...], R the answer rows or all of them.
        answer: answer tokens, A.

    Returns:
        A view [layers, heads, A + 1, ...]: the row that produced each answer token, then the last
        row, which produced nothing. Row t + 1 is that of answer token t itself.

    Examples:
        >>> rows = np.arange(9).reshape(1, 1, 9)  # a prompt of 6 tokens, an answer of 3
        >>> answer_rows(rows, answer=3)
        array([[[5, 6, 7, 8]]])
    """
    return rows[:, :, rows.shape[2] - answer - 1 :]


def top_values(values: NDArray[np.float32], count: int) -> NDArray[np.float32]:
    """The largest values of each row, descending.

    Args:
        values: float32 [..., tokens].
        count: how many to keep.

    Returns:
        float32 [..., count]; zeros follow where a row has fewer tokens.

    Examples:
        >>> top_values(np.float32([[0.25, 1.0, 0.5]]), 2)
        array([[1. , 0.5]], dtype=float32)
    """
    ordered = np.sort(values, axis=-1)[..., ::-1][..., :count]
    missing = count - ordered.shape[-1]
    if missing > 0:
        ordered = np.pad(ordered, [(0, 0)] * (ordered.ndim - 1) + [(0, missing)])
    return ordered


def hidden_vector(trace: Trace, layer: int, token: HiddenVector) -> NDArray[np.float32]:
    """One hidden vector of a trace, from states of whichever tokens the run kept.

    Args:
        trace: with hidden states.
        layer: number in the model, from 0.
        token: ``last_prompt`` is token P-1, ``last_answer`` the last answer token that is not
            end-of-sequence (that of the prompt if there is none), ``last`` token N-1,
            ``mean_answer`` the mean over the answer without end-of-sequence.

    Returns:
        float32 [hidden size].

    Raises:
        InputError: another token, or one whose state the run did not keep.
        NonFiniteError: a state that is not finite.
    """
    return require_finite(
        _hidden_vector(trace, layer, token), f"hidden state `{token}` of layer {layer}", trace
    )


def hidden_vectors(traces: Iterable[Trace], layer: int, token: HiddenVector) -> NDArray[np.float32]:
    """The hidden vectors of several traces, as :func:`hidden_vector` has them.

    Returns:
        float32 [traces, hidden size]; [0, 0] of no traces.
    """
    vectors = [hidden_vector(trace, layer, token) for trace in traces]
    return np.stack(vectors) if vectors else np.zeros((0, 0), np.float32)


def _hidden_vector(trace: Trace, layer: int, token: HiddenVector) -> NDArray[np.float32]:
    kept = trace.hidden_tokens
    states = trace.hidden(layer)
    if isinstance(kept, range):
        prompt = trace.prompt_length
        end = kept.stop - 1 if trace.finish_reason == "eos" else kept.stop
        rows = {
            "last_prompt": slice(prompt - 1, prompt),
            "last_answer": slice(end - 1, end),
            "last": slice(kept.stop - 1, kept.stop),
            "mean_answer": slice(prompt, end) if end > prompt else slice(prompt - 1, prompt),
        }
        if token in rows and rows[token].start >= kept.start:
            chosen = states[rows[token].start - kept.start : rows[token].stop - kept.start]
            vector: NDArray[np.float32] = (
                chosen[0] if len(chosen) == 1 else chosen.mean(axis=0, dtype=np.float32)
            )
            return vector
    elif token in kept:
        pooled: NDArray[np.float32] = states[kept.index(token)]
        return pooled
    raise InputError(
        f"Expected the hidden state `{token}` of a trace, got states of {kept} - extract with "
        f"{parameter('hidden_states', 'answer')} or pooled"
    )


def answer_states(trace: Trace, layer: int) -> NDArray[np.float32] | None:
    """Hidden states of the answer tokens themselves, tokens P .. N-1.

    Args:
        trace: of a run with hidden states.
        layer: number in the model, from 0.

    Returns:
        float32 [A, hidden size]; None where the run kept pooled states, or none.
    """
    kept = trace.hidden_tokens
    if not isinstance(kept, range):
        return None
    states: NDArray[np.float32] = trace.hidden(layer)[trace.prompt_length - kept.start :]
    return states
