"""Exact marginals of a trace: means over heads for its tokens, and all heads for one marginal."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hallutrace.errors import NotInRunError
from hallutrace.store.trace import Trace
from hallutrace.viewer.viewed_run import ViewedRun

_PLAIN: dict[str, tuple[str, Callable[[Trace], NDArray[np.float32]]]] = {
    "received": ("received attention", lambda trace: trace.marginals.received_mean),
    "diagonal": ("attention to itself", lambda trace: trace.marginals.diagonal),
    "previous": ("attention to the token before", lambda trace: trace.marginals.previous),
    "entropy": ("entropy of its attention, nats", lambda trace: trace.marginals.entropy),
    "value_norm": ("norm of its value vector", lambda trace: trace.marginals.value_norm),
}
_MASS = "mass_"


def segment_names(segments: list[int], tokens: int) -> list[str]:
    """What the segments of the keys are called.

    Args:
        segments: first key positions, as :attr:`hallutrace.store.trace.Trace.segments` gives them.
        tokens: their number, N.

    Examples:
        >>> segment_names([1, 9], 12), segment_names([1, 3, 7, 9], 12)
        (['first token', 'prompt', 'answer'], ['first token', 'before', 'context', 'after', 'answer'])
    """  # noqa: E501
    known = {
        2: ["first token", "prompt", "answer"],
        4: ["first token", "before", "context", "after", "answer"],
    }
    bounds = [*pairwise([0, *segments, tokens])]
    return known.get(len(segments)) or [f"tokens {begin} to {end}" for begin, end in bounds]


def marginal_titles(trace: Trace) -> dict[str, str]:
    """All marginals that a page can show of the tokens of a trace, by name, with what they are."""
    titles = {name: title for name, (title, _) in _PLAIN.items()}
    for number, segment in enumerate(segment_names(trace.segments, len(trace.tokens))):
        titles[f"{_MASS}{number}"] = f"attention to: {segment}"
    return titles


def of_heads(trace: Trace, name: str) -> NDArray[np.float32]:
    """A marginal of a trace.

    Args:
        trace: of a run.
        name: one of :func:`marginal_titles`.

    Returns:
        float32 [layers, heads, rows]; rows are all N tokens, or the last R that have marginals.
        Layers with fewer heads are padded with zeros.

    Raises:
        NotInRunError: no such marginal.

    Examples:
        >>> trace = hallutrace.open(run)[0]
        >>> of_heads(trace, "diagonal").shape[2] == len(trace.tokens)
        True
    """
    if name in _PLAIN:
        return _PLAIN[name][1](trace)
    if name in marginal_titles(trace):
        mass: NDArray[np.float32] = trace.marginals.mass[..., int(name.removeprefix(_MASS))]
        return mass
    raise NotInRunError(
        f"Expected one of {', '.join(marginal_titles(trace))}, got {name[:80]!r} - choose another"
    )


def heads_of_layers(trace: Trace, name: str) -> list[int]:
    """How many heads of each captured layer a marginal has; value vectors have their own."""
    facts = trace.manifest.facts
    given: list[int] = facts["heads"]
    if name != "value_norm":
        return given
    return list(facts.get("value_heads", [of_heads(trace, name).shape[1]] * len(given)))


def layer_means(trace: Trace, name: str) -> NDArray[np.float16]:
    """Means of a marginal over the heads of each layer, float16 [layers, rows].

    Examples:
        >>> layer_means(hallutrace.open(run)[0], "received").shape[0]
        4
    """
    values, heads = of_heads(trace, name), heads_of_layers(trace, name)
    means = [layer[:count].mean(axis=0) for layer, count in zip(values, heads, strict=True)]
    return np.array(means, np.float16).reshape(len(heads), values.shape[2])


def token_heads_data(
    viewed: ViewedRun, *, trace: str | None = None, marginal: str = "received"
) -> dict[str, Any]:
    """One marginal of a trace in all heads.

    Args:
        viewed: the run.
        trace: key of a trace; the first if None.
        marginal: one of :func:`marginal_titles`.

    Returns:
        ``title``; ``layers``, their numbers; ``heads``, how many each layer has; ``values`` float16
        [layers, heads, rows], rows as in :func:`of_heads`.

    Raises:
        NotInRunError: no such trace or marginal.

    Examples:
        >>> token_heads_data(ViewedRun(hallutrace.open(run)))["values"].shape[:2]
        (4, 8)
    """
    found = viewed.trace(viewed.key_texts[0] if trace is None else trace)
    values = of_heads(found, marginal)
    return {
        "title": marginal_titles(found)[marginal],
        "layers": found.layers,
        "heads": heads_of_layers(found, marginal),
        "values": values.astype(np.float16),
    }
