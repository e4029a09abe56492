"""Captures a model's attention in blocks of query rows.

With the attention implementation ``eager``, the layers of a transformers model call the function
``eager_attention_forward`` of their module. Inside :func:`capturing` that function is wrapped: the
layers of the captured model call it on blocks of query rows, so the attention matrix of a layer is
never in memory as a whole. Masks, indices, biases and sinks are computed by the model, unchanged.

```text
for each block of query rows i..j:
    call the model's function on the rows i..j and the keys 0..j     later keys have weight 0
    pass the weights to the consumer, copy the outputs into the layer's output
```

Registering a new attention implementation with transformers would not be exact: models apply some
masks only if the name is ``eager`` or ``sdpa``, and silently ignore a sparse-attention index.
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

# (maximum tokens, query rows per block). Longer rows need smaller blocks, so that the scores of a
# block stay in the CPU cache while they are scaled, masked, normalised and reduced. Time relative
# to the plain forward pass with 16, 32, 64, 128, 256 rows (Qwen3 shapes, 16 heads, one thread):
# 2,048 tokens: 1.30, 1.17, 1.13, 1.13, 1.19; 8,192 tokens: 1.69, 1.34, 1.42, 1.57, 1.72.
BLOCK_ROWS = ((256, 256), (4096, 64), (sys.maxsize, 32))

# Tensors that models pass to every implementation, but eager functions do not use.
UNREAD = frozenset({"position_ids", "cache_position", "indices", "block_indices"})

# Tensors that eager functions add to the scores: [batch, heads, queries, keys or 1], sliced for
# each block of rows, or [heads], the same for all rows.
BY_ROWS = frozenset({"position_bias", "sinks", "s_aux"})

# Called with layer index, weights [batch, heads, rows, keys], values [batch, value heads, keys,
# head_dim] and the first query row of the block.
Consumer = Callable[[int, torch.Tensor, torch.Tensor, int], None]


def block_rows(tokens: int) -> int:
    """Number of query rows of a block.

    It depends on the sequence length alone, because it affects the last bits of the results.

    Args:
        tokens: query rows of the sequence.

    Examples:
        >>> [block_rows(tokens) for tokens in (100, 2048, 8192)]
        [100, 64, 32]
    """
    return min(tokens, next(rows for most, rows in BLOCK_ROWS if tokens <= most))


class Capture:
    """The state of one capture of a model.

    Args:
        model: the model whose layers are captured.
        consumer: called with the weights of each block.
        rows: query rows of a block; None for :func:`block_rows`.

    Attributes:
        unnumbered: number of attention calls that were not captured, because the module has no
            layer index.
    """

    def __init__(self, model: torch.nn.Module, consumer: Consumer, rows: int | None) -> None:
        self._consumer = consumer
        self._rows = rows
        self._model_type = getattr(
            getattr(model, "config", None), "model_type", type(model).__name__
        )
        # Attention that is not over tokens, such as over image patches, has no layer index.
        self._layer_indices = {
            module: index
            for module in model.modules()
            if isinstance(index := getattr(module, "layer_idx", None), int) and index >= 0
        }
        self._attended: set[int] = set()
        self.unnumbered = 0

    def has(self, module: torch.nn.Module) -> bool:
        """Whether the attention of a module is captured; counts the calls that are not."""
        self.unnumbered += module not in self._layer_indices
        return module in self._layer_indices

    def number(self, module: torch.nn.Module) -> int:
        """The layer index of an attention module."""
        return self._layer_indices[module]

    def attend(
        self,
        eager: Eager,
        module: torch.nn.Module,
        query: torch.Tensor,  # [batch, heads, queries, head_dim]
        key: torch.Tensor,  # [batch, key heads, keys, head_dim]
        value: torch.Tensor,  # [batch, key heads, keys, head_dim]
        mask: torch.Tensor | None,  # [batch or 1, heads or 1, queries, keys]
        kwargs: dict[str, Any],
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Calls the model's eager attention on blocks of rows and passes the weights on.

        Returns:
            Output [batch, queries, heads, head_dim] of all rows, and None for the weights.

        Raises:
            ModelError: blocks of rows would not give the same weights.
        """
        layer = self._layer_indices[module]
        self._check_call(layer, eager, query, key, kwargs)
        if "dropout" in kwargs:
            kwargs = kwargs | {"dropout": 0.0}
        queries, keys = query.shape[2], key.shape[2]
        past = keys - queries
        rows = self._rows or block_rows(queries)
        outputs: torch.Tensor | None = None
        with _repeated_kv(module, query, key, value, queries > rows) as (
            keys_per_head,
            values_per_head,
        ):
            for begin in range(0, queries, rows):
                end = min(begin + rows, queries)
                seen = past + end
                output, weights = eager(
                    module,
                    query[:, :, begin:end],
                    keys_per_head[:, :, :seen],
                    values_per_head[:, :, :seen],
                    None if mask is None else mask[:, :, begin:end, :seen],
                    **_block_arguments(kwargs, begin, end, queries, seen),
                )
                self._check_weights(layer, weights, (*query.shape[:2], end - begin, seen))
                if outputs is None:
                    outputs = output.new_empty(output.shape[0], queries, *output.shape[2:])
                outputs[:, begin:end] = output
                self._consumer(layer, weights, value, past + begin)
        assert outputs is not None
        return outputs, None

    def _check_call(
        self,
        layer: int,
        eager: Eager,
        query: torch.Tensor,
        key: torch.Tensor,
        kwargs: dict[str, Any],
    ) -> None:
        """Raises a :class:`ModelError` if blocks of rows would not be exact."""
        if layer in self._attended:
            raise self._not_capturable(f"layer {layer} attends more than once")
        self._attended.add(layer)
        if key.shape[2] < query.shape[2]:
            raise self._not_capturable(
                f"layer {layer} attends with {query.shape[2]} queries to {key.shape[2]} keys, "
                "so its keys are not tokens"
            )
        for name in _possible_tensors(kwargs):
            if not _is_supported(name, kwargs[name], query.shape[2], eager):
                raise self._not_capturable(
                    f"layer {layer} calls attention with the argument `{name}`"
                )

    def _check_weights(
        self, layer: int, weights: torch.Tensor | None, shape: tuple[int, ...]
    ) -> None:
        got = None if weights is None else tuple(weights.shape)
        if got != shape:
            raise self._not_capturable(f"layer {layer} gives weights {got} where {shape} are due")

    def _not_capturable(self, why: str) -> ModelError:
        return ModelError(
            f"Expected a model whose attention can be captured, got {self._model_type}: {why} - "
            "choose another architecture (llama, qwen, mistral, gemma, phi, gpt2 ...)"
        )


def _possible_tensors(kwargs: dict[str, Any]) -> Iterator[str]:
    """Names of the arguments that are or may contain tensors, and so may differ between rows."""
    for name, given in kwargs.items():
        if not isinstance(given, (int, float, str, bool, torch.dtype, type(None))):
            yield name


def _is_supported(name: str, given: Any, queries: int, eager: Eager) -> bool:
    """Whether an argument that may contain tensors is sliced correctly for blocks of rows."""
    if name in UNREAD:
        return name not in _parameters(eager)
    if name not in BY_ROWS or not isinstance(given, torch.Tensor):
        return False
    return given.ndim == 1 or (given.ndim == 4 and given.shape[2] == queries)


@functools.cache
def _parameters(eager: Eager) -> frozenset[str]:
    return frozenset(inspect.signature(eager).parameters)


def _block_arguments(
    kwargs: dict[str, Any], begin: int, end: int, queries: int, seen: int
) -> dict[str, Any]:
    """The keyword arguments with tensors sliced to a block of rows."""
    sliced = {
        name: kwargs[name][:, :, begin:end, :seen]
        for name in BY_ROWS & kwargs.keys()
        if isinstance(kwargs[name], torch.Tensor) and kwargs[name].ndim == 4
    }
    return kwargs | sliced


@contextmanager
def _repeated_kv(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    several_blocks: bool,
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Repeats grouped key and value heads once for all blocks.

    The model's function repeats them on each call, which would take most of the time of a small
    block. Inside this context its number of groups is 1, so it repeats nothing.
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


# The active capture of this thread; forward passes of other threads are not captured.
_CURRENT: ContextVar[Capture | None] = ContextVar("hallutrace_capture", default=None)


@contextmanager
def capturing(
    model: Any,
    consumer: Consumer,
    rows: int | None = None,
    kind: type[Capture] = Capture,
) -> Iterator[Capture]:
    """Passes the attention of a forward pass of ``model`` in this thread to ``consumer``.

    Run exactly one forward pass inside the context. Other threads may capture other models at the
    same time; a thread that captures the same model waits.

    Args:
        model: a model of transformers.
        consumer: called for each block of rows of each attention layer.
        rows: query rows of a block; None for :func:`block_rows`.
        kind: class whose ``attend`` replaces the attention function.

    Raises:
        ModelError: from the forward pass, if blocks of rows would not be exact: a layer attends
            more than once, keys are not tokens, or an argument is not supported.

    Examples:
        >>> from transformers import AutoModelForCausalLM
        >>> from hallutrace.demo import MODEL_FOLDER
        >>> model = AutoModelForCausalLM.from_pretrained(MODEL_FOLDER)
        >>> layers = []
        >>> with capturing(model, lambda layer, weights, values, row: layers.append(layer)):
        ...     output = model(torch.tensor([[5, 6, 7]]))
        >>> layers
        [0, 1, 2, 3]
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
        # Pass positional arguments by name, so that they are checked and sliced.
        names = list(inspect.signature(eager).parameters)[5:]
        kwargs.update(zip(names, args, strict=False))
        return capture.attend(eager, module, query, key, value, attention_mask, kwargs)

    return attention
