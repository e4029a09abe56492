"""Columns of nodes, by name; rows that have no such value are zeros, and a column says so.

========== ========================================================================================
hidden     the hidden state of the graph's layer (or what a reducer makes of it), then 1 where it
           is kept. Of pooled states the last prompt token, the last answer token and the last one
           are put on these tokens; the mean of the answer belongs to none.
marginals  ``diagonal`` of each head, then ``received_mean`` of each, ``previous``, ``entropy``, and
           the mass on the first token, on the rest of the prompt but for the context, on the
           context, and on the answer; then 1 where the last six are kept (the answer rows, unless
           the run kept all). Layers with fewer heads are padded with zeros.
position   the token's number in the trace, from 0, and the same over N - 1.
role       1 for prompt, 1 for answer.
logprob    log-probability and entropy of an answer token, then 1; zeros for prompt tokens.
========== ========================================================================================

Source: ours.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hallutrace.graphs.edges import TraceSlice
from hallutrace.graphs.layout import GraphLayout
from hallutrace.store.trace import Trace

Floats = NDArray[np.float32]


def fill(one: TraceSlice, layout: GraphLayout, x: Floats) -> None:
    """Writes the features of the nodes of a slice.

    Args:
        one: the trace and its layers.
        layout: says which columns are whose.
        x: zeros, float32 [graphs * nodes, features]; one graph, or one for each layer.
    """
    count = one.tokens - one.first
    of_graphs = x.reshape(len(x) // count, count, x.shape[1])
    for name, columns in layout.columns.items():
        target = of_graphs[:, :, columns]
        if name in _OF_LAYERS:
            if layout.options.per == "trace":
                # [nodes, layers * columns] as [layers, nodes, columns]; splitting an axis is a view
                target = target[0].reshape(count, len(one.layers), -1).transpose(1, 0, 2)
            _OF_LAYERS[name](one, layout, target)
        else:
            _OF_TOKENS[name](one, target)


def _hidden(one: TraceSlice, layout: GraphLayout, x: Floats) -> None:
    """Of [layers, nodes, states + 1]."""
    reducer = layout.options.reducer
    for index, states in zip(one.layers, x, strict=True):
        layer = layout.layers[index]
        tokens, vectors = hidden_rows(one.trace, layer, one.first)
        if reducer is not None:
            vectors = reducer.transform(layer, vectors)
        states[tokens, :-1] = vectors
        states[tokens, -1] = 1


def hidden_rows(trace: Trace, layer: int, first: int) -> tuple[slice | list[int], Floats]:
    """Hidden states that belong to a token, from a first token on.

    Args:
        trace: with hidden states.
        layer: number in the model.
        first: the token that counts as 0.

    Returns:
        Indices of the tokens, and their states, float32 [tokens, hidden size].
    """
    states, kept = trace.hidden(layer), trace.hidden_tokens
    if isinstance(kept, range):
        skipped = max(0, first - kept.start)
        return slice(kept.start + skipped - first, kept.stop - first), states[skipped:]
    last = len(trace.tokens) - 1
    names = {name: row for row, name in enumerate(kept)}
    # The last answer token is the one before the last where that is end-of-sequence; where it is
    # not, both are one and their states are equal.
    is_last = np.array_equal(states[names["last_answer"]], states[names["last"]])
    row_of_token = {
        trace.prompt_length - 1: names["last_prompt"],
        (last if is_last else last - 1): names["last_answer"],
        last: names["last"],
    }
    inside = {token: row for token, row in row_of_token.items() if token >= first}
    return [token - first for token in inside], states[list(inside.values())]


def _marginals(one: TraceSlice, layout: GraphLayout, x: Floats) -> None:
    """Of [layers, nodes, heads * 8 + 1]."""
    trace, first, heads = one.trace, one.first, layout.heads
    layers = layout.stored_index[list(one.layers)]
    which = slice(layers[0], layers[0] + 1) if len(layers) == 1 else layers

    def read(name: str, skipped: int) -> NDArray[np.float16]:
        """[layers, tokens, heads, ...] of the tokens that are not skipped."""
        stored: NDArray[np.float16] = trace.stored(f"marginals.{name}")[which, :, skipped:]
        swapped: NDArray[np.float16] = stored.swapaxes(1, 2)
        return swapped

    def write(rows: Floats, number: int, values: NDArray[np.floating[Any]]) -> None:
        rows[..., number * heads : (number + 1) * heads] = values

    write(x, 0, read("diagonal", first))
    write(x, 1, read("received_mean", first))
    begin = one.tokens - trace.stored("marginals.entropy").shape[2]
    skipped = max(0, first - begin)
    rows = x[:, begin + skipped - first :]  # those of which the run keeps the row
    write(rows, 2, read("previous", skipped))
    write(rows, 3, read("entropy", skipped))
    mass = read("mass", skipped)
    write(rows, 4, mass[..., 0])
    if mass.shape[-1] == 5:  # first token, before the context, context, after it, answer
        write(rows, 5, mass[..., 1].astype(np.float32) + mass[..., 3])
        write(rows, 6, mass[..., 2])
    else:
        write(rows, 5, mass[..., 1])
    write(rows, 7, mass[..., -1])
    rows[..., -1] = 1


def _position(one: TraceSlice, x: Floats) -> None:
    """Of [graphs, nodes, 2]."""
    position = np.arange(one.first, one.tokens, dtype=np.float32)
    x[..., 0] = position
    x[..., 1] = position / max(one.tokens - 1, 1)


def _role(one: TraceSlice, x: Floats) -> None:
    """Of [graphs, nodes, 2]."""
    prompt = max(one.prompt - one.first, 0)
    x[:, :prompt, 0] = 1
    x[:, prompt:, 1] = 1


def _logprob(one: TraceSlice, x: Floats) -> None:
    """Of [graphs, nodes, 3]."""
    skipped = max(one.first - one.prompt, 0)
    answer = x[:, max(one.prompt - one.first, 0) :]
    answer[..., 0] = one.trace.logprob[skipped:]
    answer[..., 1] = one.trace.token_entropy[skipped:]
    answer[..., 2] = 1


_OF_LAYERS: dict[str, Callable[[TraceSlice, GraphLayout, Floats], None]] = {
    "hidden": _hidden,
    "marginals": _marginals,
}
_OF_TOKENS: dict[str, Callable[[TraceSlice, Floats], None]] = {
    "position": _position,
    "role": _role,
    "logprob": _logprob,
}
