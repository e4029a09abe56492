"""The way into a model's attention: blocks of query rows, each handed on as it is made.

transformers' models call a function of their own module, ``eager_attention_forward``, while their
attention implementation is ``eager``. Within :func:`capturing` that function is wrapped: layers of
the captured model run it on blocks of query rows, so no layer's whole attention is ever held. All
other branches of the model (masks, indices, biases, sinks) are its own, as without capture.

```text
for each block of query rows i..j:
    the model's own function, on the rows i..j and the keys 0..j     later keys have weight 0
    weights go to the consumer, outputs into the layer's output
```

A registered implementation with a name of its own was tried and rejected: models apply some masks
for the names ``eager`` and ``sdpa`` alone, so a sparse-attention index was ignored in silence.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch

from hallutrace.capture.eager_functions import Eager, wrapped
from hallutrace.errors import ModelError
from hallutrace.model.locks import exclusive
from hallutrace.transformers_compat import attention_implementation

# Query rows of a block: (up to so many tokens, rows). Longer rows go in smaller blocks, so that the
# scores of a block stay in the cache while they are scaled, masked, normalised and reduced. Time
# against the plain forward, Qwen3 shapes, 16 heads, one thread, by blocks of 16, 32, 64, 128, 256:
# 2,048 tokens: 1.30, 1.17, 1.13, 1.13, 1.19; 8,192 tokens: 1.69, 1.34, 1.42, 1.57, 1.72.
BLOCK_ROWS = ((256, 256), (4096, 64), (sys.maxsize, 32))

# Tensors that models pass to every implementation and that eager functions do not read.
UNREAD = frozenset({"position_ids", "cache_position", "indices", "block_indices"})

# Tensors that eager functions add to the scores, [batch, heads, queries, keys or 1]: a block of
# rows needs its own rows of them. With one axis [heads] they are the same for all rows.
BY_ROWS = frozenset({"position_bias", "sinks", "s_aux"})

# What an attention layer's weights are given to: layer number, weights [batch, heads, rows, keys],
# values [batch, value heads, keys, width], first query row.
Consumer = Callable[[int, torch.Tensor, torch.Tensor, int], None]


def block_rows(tokens: int) -> int:
    """Query rows of a block, from the shape alone, because the last bits depend on it."""
    return min(tokens, next(rows for most, rows in BLOCK_ROWS if tokens <= most))


class Capture:
    """One capture that is going on: which model, how many rows a block has, who is told.

    Args:
        model: whose layers are captured.
        consumer: told of every block.
        rows: query rows of a block; None decides from the shape.
    """

    def __init__(self, model: torch.nn.Module, consumer: Consumer, rows: int | None) -> None:
        self._consumer = consumer
        self._rows = rows
        self._kind = getattr(getattr(model, "config", None), "model_type", type(model).__name__)
        # Attention over something else than tokens, as of depth or images, has no layer number.
        self._numbers = {
            module: number
            for module in model.modules()
            if isinstance(number := getattr(module, "layer_idx", None), int) and number >= 0
        }
        self._seen: set[int] = set()
        self.unnumbered = 0  # calls of attention that were not captured

    def has(self, module: torch.nn.Module) -> bool:
        """Whether a module's attention is captured."""
        self.unnumbered += module not in self._numbers
        return module in self._numbers

    def number(self, module: torch.nn.Module) -> int:
        """The layer that a module is the attention of."""
        return self._numbers[module]

    def attend(
        self,
        eager: Eager,
        module: torch.nn.Module,
        query: torch.Tensor,  # [batch, heads, queries, width]
        key: torch.Tensor,  # [batch, key heads, keys, width]
        value: torch.Tensor,  # [batch, key heads, keys, width]
        mask: torch.Tensor | None,  # [batch or 1, heads or 1, queries, keys]
        kwargs: dict[str, Any],
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """The model's own eager attention, by blocks of rows, each handed on as it is made."""
        layer = self._numbers[module]
        self._check_call(layer, eager, query, key, kwargs)
        if "dropout" in kwargs:
            kwargs = kwargs | {"dropout": 0.0}
        queries, keys = query.shape[2], key.shape[2]
        past = keys - queries
        rows = self._rows or block_rows(queries)
        whole: torch.Tensor | None = None
        with _repeated(module, query, key, value, queries > rows) as (every_key, every_value):
            for begin in range(0, queries, rows):
                end = min(begin + rows, queries)
                seen = past + end
                output, weights = eager(
                    module,
                    query[:, :, begin:end],
                    every_key[:, :, :seen],
                    every_value[:, :, :seen],
                    None if mask is None else mask[:, :, begin:end, :seen],
                    **_of_rows(kwargs, begin, end, queries, seen),
                )
                self._check_weights(layer, weights, (*query.shape[:2], end - begin, seen))
                if whole is None:
                    whole = output.new_empty(output.shape[0], queries, *output.shape[2:])
                whole[:, begin:end] = output
                self._consumer(layer, weights, value, past + begin)
        assert whole is not None
        return whole, None

    def _check_call(
        self,
        layer: int,
        eager: Eager,
        query: torch.Tensor,
        key: torch.Tensor,
        kwargs: dict[str, Any],
    ) -> None:
        """Refuses what blocks of rows could not do exactly."""
        if layer in self._seen:
            raise self._refused(f"layer {layer} attends more than once")
        self._seen.add(layer)
        if key.shape[2] < query.shape[2]:
            raise self._refused(
                f"layer {layer} attends with {query.shape[2]} queries to {key.shape[2]} keys, "
                "so its keys are not tokens"
            )
        for name in _tensors(kwargs):
            if not _is_known(name, kwargs[name], query.shape[2], eager):
                raise self._refused(f"layer {layer} calls attention with the argument `{name}`")

    def _check_weights(
        self, layer: int, weights: torch.Tensor | None, shape: tuple[int, ...]
    ) -> None:
        got = None if weights is None else tuple(weights.shape)
        if got != shape:
            raise self._refused(f"layer {layer} gives weights {got} where {shape} are due")

    def _refused(self, why: str) -> ModelError:
        return ModelError(
            f"Expected a model whose attention can be captured, got {self._kind}: {why} - "
            "choose another architecture (llama, qwen, mistral, gemma, phi, gpt2 ...)"
        )


def _tensors(kwargs: dict[str, Any]) -> Iterator[str]:
    """Names of arguments that are, or may hold, tensors; plain values are the same for all rows."""
    for name, given in kwargs.items():
        if not isinstance(given, (int, float, str, bool, torch.dtype, type(None))):
            yield name


def _is_known(name: str, given: Any, queries: int, eager: Eager) -> bool:
    """Whether blocks of rows do right by an argument that is no plain value."""
    if name in UNREAD:
        return name not in _parameters(eager)
    if name not in BY_ROWS or not isinstance(given, torch.Tensor):
        return False
    return given.ndim == 1 or (given.ndim == 4 and given.shape[2] == queries)


@functools.cache
def _parameters(eager: Eager) -> frozenset[str]:
    return frozenset(inspect.signature(eager).parameters)


def _of_rows(
    kwargs: dict[str, Any], begin: int, end: int, queries: int, seen: int
) -> dict[str, Any]:
    """The arguments of a block of rows."""
    own = {
        name: kwargs[name][:, :, begin:end, :seen]
        for name in BY_ROWS & kwargs.keys()
        if isinstance(kwargs[name], torch.Tensor) and kwargs[name].ndim == 4
    }
    return kwargs | own


@contextmanager
def _repeated(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    several_blocks: bool,
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Keys and values with a head for every query head, once for all blocks.

    The model's function repeats them on every call, which would cost more than all the rest of a
    small block; within this it is told that there is nothing to repeat.
    """
    groups = getattr(module, "num_key_value_groups", 1)
    grouped = all(states.shape[1] * groups == query.shape[1] for states in (key, value))
    if groups == 1 or not grouped or not several_blocks:
        yield key, value
        return
    module.num_key_value_groups = 1  # type: ignore[assignment]
    try:
        yield key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    finally:
        module.num_key_value_groups = groups  # type: ignore[assignment]


# The capture of this thread; a forward pass in another thread does not see it.
_CURRENT: ContextVar[Capture | None] = ContextVar("hallutrace_capture", default=None)


@contextmanager
def capturing(
    model: Any,
    consumer: Consumer,
    rows: int | None = None,
    kind: type[Capture] = Capture,
) -> Iterator[Capture]:
    """Within it, a forward pass of ``model`` in this thread gives its attention to ``consumer``.

    Each layer may attend once: make one forward pass. Other threads may capture other models at
    the same time; they wait for the same one.

    Args:
        model: a model of transformers.
        consumer: called for every block of rows of every attention layer.
        rows: query rows of a block; None decides from the shape.
        kind: what is done with a call of attention.

    Raises:
        ModelError: from the forward pass, where blocks of rows would not be exact: a layer that
            attends more than once, keys that are not tokens, arguments that are not known.
    """
    with exclusive(model), wrapped(model, _wrap), attention_implementation(model, "eager"):
        capture = kind(model, consumer, rows)
        token = _CURRENT.set(capture)
        try:
            yield capture
        finally:
            _CURRENT.reset(token)


def _wrap(eager: Eager) -> Eager:
    @functools.wraps(eager)
    def attention(
        module: torch.nn.Module,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        capture = _CURRENT.get()
        if capture is None or not capture.has(module):
            return eager(module, query, key, value, attention_mask, *args, **kwargs)
        # What a function takes by place has a name as well.
        names = list(inspect.signature(eager).parameters)[5:]
        kwargs.update(zip(names, args, strict=False))
        return capture.attend(eager, module, query, key, value, attention_mask, kwargs)

    return attention
