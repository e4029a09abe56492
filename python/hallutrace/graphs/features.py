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

import numpy as np
from numpy.typing import NDArray

from hallutrace.graphs.edges import Part
from hallutrace.graphs.recipe import Plan
from hallutrace.store.trace import Trace

Floats = NDArray[np.float32]


def fill(part: Part, plan: Plan, nodes: Floats) -> None:
    """Writes the features of a part's nodes.

    Args:
        part: the trace and its layers.
        plan: says which columns are whose.
        nodes: zeros, float32 [graphs * nodes, width] of graphs one a layer, or [nodes, width].
    """
    count = part.tokens - part.first
    layered = nodes.reshape(
        len(nodes) // count, count, nodes.shape[1]
    )  # [layers or 1, nodes, width]
    for name, columns in plan.columns.items():
        target = layered[:, :, columns]
        if name in _OF_LAYERS:
            if plan.recipe.per == "trace":
                # [nodes, layers * width] as [layers, nodes, width]; splitting an axis is a view
                target = target[0].reshape(count, len(part.at), -1).transpose(1, 0, 2)
            _OF_LAYERS[name](part, plan, target)
        else:
            _OF_TOKENS[name](part, target)


def _hidden(part: Part, plan: Plan, nodes: Floats) -> None:
    """Of [layers, nodes, width + 1]."""
    trace, reducer = part.trace, plan.recipe.reducer
    for at, states in zip(part.at, nodes, strict=True):
        layer = plan.layers[at]
        positions, vectors = hidden_rows(trace, layer, part.first)
        if reducer is not None:
            vectors = reducer.transform(layer, vectors)
        states[positions, :-1] = vectors
        states[positions, -1] = 1


def hidden_rows(trace: Trace, layer: int, first: int) -> tuple[slice | list[int], Floats]:
    """Hidden states that belong to a token, from a first token on.

    Args:
        trace: with hidden states.
        layer: number in the model.
        first: the token that counts as 0.

    Returns:
        Places of the tokens, and their states, float32 [places, width].
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
    placed = {
        trace.prompt_length - 1: names["last_prompt"],
        (last if is_last else last - 1): names["last_answer"],
        last: names["last"],
    }
    inside = {token: row for token, row in placed.items() if token >= first}
    return [token - first for token in inside], states[list(inside.values())]


def _marginals(part: Part, plan: Plan, nodes: Floats) -> None:
    """Of [layers, nodes, heads * 8 + 1]."""
    trace, first, heads = part.trace, part.first, plan.heads
    layers = plan.places[list(part.at)]
    which = slice(layers[0], layers[0] + 1) if len(layers) == 1 else layers

    def read(name: str, skipped: int) -> NDArray[np.float16]:
        """[layers, tokens, heads, ...] of the tokens that are not skipped."""
        stored: NDArray[np.float16] = trace.stored(f"marginals.{name}")[which, :, skipped:]
        swapped: NDArray[np.float16] = stored.swapaxes(1, 2)
        return swapped

    nodes[..., :heads] = read("diagonal", first)
    nodes[..., heads : 2 * heads] = read("received_mean", first)
    rows = trace.stored("marginals.entropy").shape[2]
    begin = part.tokens - rows
    skipped = max(0, first - begin)
    answer = nodes[:, begin + skipped - first :]
    answer[..., 2 * heads : 3 * heads] = read("previous", skipped)
    answer[..., 3 * heads : 4 * heads] = read("entropy", skipped)
    mass = read("mass", skipped)
    first_token, answer_mass = mass[..., 0], mass[..., -1]
    if mass.shape[-1] == 5:  # first token, before the context, context, after it, answer
        prompt, context = mass[..., 1].astype(np.float32) + mass[..., 3], mass[..., 2]
    else:
        prompt, context = mass[..., 1], None
    for at, one in enumerate((first_token, prompt, context, answer_mass), start=4):
        if one is not None:
            answer[..., at * heads : (at + 1) * heads] = one
    answer[..., -1] = 1


def _position(part: Part, nodes: Floats) -> None:
    """Of [graphs, nodes, 2]."""
    position = np.arange(part.first, part.tokens, dtype=np.float32)
    nodes[..., 0] = position
    nodes[..., 1] = position / max(part.tokens - 1, 1)


def _role(part: Part, nodes: Floats) -> None:
    """Of [graphs, nodes, 2]."""
    prompt = max(part.prompt - part.first, 0)
    nodes[:, :prompt, 0] = 1
    nodes[:, prompt:, 1] = 1


def _logprob(part: Part, nodes: Floats) -> None:
    """Of [graphs, nodes, 3]."""
    skipped = max(part.first - part.prompt, 0)
    answer = nodes[:, max(part.prompt - part.first, 0) :]
    answer[..., 0] = part.trace.logprob[skipped:]
    answer[..., 1] = part.trace.token_entropy[skipped:]
    answer[..., 2] = 1


_OF_LAYERS: dict[str, Callable[[Part, Plan, Floats], None]] = {
    "hidden": _hidden,
    "marginals": _marginals,
}
_OF_TOKENS: dict[str, Callable[[Part, Floats], None]] = {
    "position": _position,
    "role": _role,
    "logprob": _logprob,
}
