"""Which hidden states a run has one of for every trace, and reading them block by block."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from hallutrace.detect.features import answer_states, hidden_vector
from hallutrace.detect.options import HIDDEN_VECTORS
from hallutrace.errors import InputError, NotInRunError
from hallutrace.option_names import parameter
from hallutrace.store.finite_numbers import require_finite
from hallutrace.store.reader import TraceStore
from hallutrace.store.trace import Trace

FIRST_ANSWER = "first_answer"
_PREFERRED = "last_answer"
_ROWS = 512  # vectors in memory at a time

Progress = Callable[[str, int, int], None]
"""Takes what is being done, how many steps of it are done, and of how many."""


def silent(what: str, done: int, total: int) -> None:
    """A progress that nobody sees."""


def map_layers(store: TraceStore) -> list[int]:
    """Numbers of the layers whose hidden states the run keeps.

    Raises:
        NotInRunError: it keeps none.

    Examples:
        >>> map_layers(hallutrace.open(run))
        [0, 1, 2, 3]
    """
    hidden = store.manifest.identity.get("hidden") or {}
    if hidden.get("states", "none") == "none" or not hidden.get("layers"):
        raise NotInRunError(
            "This run has no hidden states: `hallutrace extract --hidden-states answer` (or "
            "`pooled`) keeps them"
        )
    return [int(layer) for layer in hidden["layers"]]


def map_tokens(store: TraceStore) -> list[str]:
    """Names of the tokens of which every trace has a hidden state, the default first.

    The names of pooled states, and ``first_answer`` where the states of all answer tokens are kept.

    Raises:
        NotInRunError: the run has no hidden states.

    Examples:
        >>> map_tokens(hallutrace.open(run))
        ['last_answer', 'last_prompt', 'last', 'mean_answer', 'first_answer']
    """
    map_layers(store)
    others = [one for one in HIDDEN_VECTORS if one != _PREFERRED]
    pooled = store.manifest.identity["hidden"]["states"] == "pooled"
    return [_PREFERRED, *others, *([] if pooled else [FIRST_ANSWER])]


def chosen_states(store: TraceStore, layer: int | None, token: str | None) -> tuple[int, str]:
    """Layer and token, with defaults: the last layer, and the last answer token.

    Raises:
        NotInRunError: the run has no hidden states.
        InputError: a layer or token that it does not keep.

    Examples:
        >>> chosen_states(hallutrace.open(run), None, None)
        (3, 'last_answer')
    """
    layers, tokens = map_layers(store), map_tokens(store)
    if layer is not None and layer not in layers:
        raise InputError(
            f"Expected a layer with hidden states ({', '.join(map(str, layers))}), got {layer} - "
            f"choose another {parameter('layer')}"
        )
    if token is not None and token not in tokens:
        raise InputError(
            f"Expected a token with hidden states ({', '.join(tokens)}), got {token[:80]!r} - "
            f"choose another {parameter('token')}"
        )
    return layers[-1] if layer is None else layer, token or tokens[0]


class HiddenStates:
    """One hidden vector of each trace of a run, read anew each time, in blocks.

    Args:
        store: the run.
        layer: number in the model, from 0.
        token: one of :func:`map_tokens`.
        progress: is told how many traces were read.

    Examples:
        >>> states = HiddenStates(hallutrace.open(run), 3, "last_answer")
        >>> [block.shape for block in states.blocks("reading")]
        [(8, 160)]
    """

    def __init__(
        self, store: TraceStore, layer: int, token: str, progress: Progress = silent
    ) -> None:
        self._store, self._layer, self._token = store, layer, token
        self._progress = progress

    def __len__(self) -> int:
        return len(self._store)

    def blocks(self, what: str) -> Iterator[NDArray[np.float32]]:
        """The vectors in the order of the run, float32 [at most 512, hidden size].

        Args:
            what: is being done, for the progress.

        Raises:
            DamagedError: a trace is damaged.
            NonFiniteError: a state is not finite.
        """
        for begin in range(0, len(self), _ROWS):
            self._progress(what, begin, len(self))
            traces = self._store[begin : begin + _ROWS]
            yield np.stack([_vector(trace, self._layer, self._token) for trace in traces])
        self._progress(what, len(self), len(self))


def _vector(trace: Trace, layer: int, token: str) -> NDArray[np.float32]:
    if token != FIRST_ANSWER:
        named = next(one for one in HIDDEN_VECTORS if one == token)
        return hidden_vector(trace, layer, named)
    states = answer_states(trace, layer)
    if states is None or not len(states):
        raise InputError(
            f"Expected a trace with states of its answer's tokens, got none in {trace.id!r}, "
            f"sample {trace.sample} - choose another {parameter('token')}"
        )
    return require_finite(states[0], f"hidden state `{token}` of layer {layer}", trace)
