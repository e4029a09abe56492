"""The way into a model's attention: blocks of query rows, each handed on as it is made.

transformers hands every attention layer to one function, registered by name. Ours runs the model's
own eager function on blocks of query rows, so no layer's whole attention is ever held. Rows i..j
need the keys 0..j alone, which is what makes long inputs bearable.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

IMPLEMENTATION = "hallutrace"

# Query rows of a block: (up to so many tokens, rows). Longer rows go in smaller blocks, so that the
# scores of a block stay in the cache while they are scaled, masked, normalised and reduced. Time
# against the plain forward, Qwen3 shapes, 16 heads, one thread, by blocks of 16, 32, 64, 128, 256:
# 2,048 tokens: 1.30, 1.17, 1.13, 1.13, 1.19; 8,192 tokens: 1.69, 1.34, 1.42, 1.57, 1.72.
BLOCK_ROWS = ((256, 256), (4096, 64), (sys.maxsize, 32))

# What an attention layer's weights are given to: layer number, weights [batch, heads, rows, keys],
# values [batch, value heads, keys, width], first query row.
Consumer = Callable[[int, torch.Tensor, torch.Tensor, int], None]


def block_rows(tokens: int) -> int:
    """Query rows of a block, from the shape alone, because the last bits depend on it."""
    return min(tokens, next(rows for most, rows in BLOCK_ROWS if tokens <= most))


class _State:
    """The capture that is going on, if any; transformers' interface leaves no other way in."""

    consumer: Consumer | None = None
    rows: int | None = None


def _captured_attention(
    module: torch.nn.Module,
    query: torch.Tensor,  # [batch, heads, queries, width]
    key: torch.Tensor,  # [batch, key heads, keys, width]
    value: torch.Tensor,  # [batch, key heads, keys, width]
    attention_mask: torch.Tensor | None,  # [batch or 1, 1, queries, keys]
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """The model's own eager attention, by blocks of rows, each handed on as it is made."""
    eager = sys.modules[type(module).__module__].eager_attention_forward
    kwargs["dropout"] = 0.0
    queries, keys = query.shape[2], key.shape[2]
    past = keys - queries
    rows = _State.rows or block_rows(queries)
    whole: torch.Tensor | None = None
    with _repeated(module, key, value, queries > rows) as (every_key, every_value):
        for begin in range(0, queries, rows):
            end = min(begin + rows, queries)
            seen = past + end
            mask = None
            if attention_mask is not None:
                mask = attention_mask[:, :, begin:end, :seen]
            output, weights = eager(
                module,
                query[:, :, begin:end],
                every_key[:, :, :seen],
                every_value[:, :, :seen],
                mask,
                **kwargs,
            )
            if whole is None:
                whole = output.new_empty(output.shape[0], queries, *output.shape[2:])
            whole[:, begin:end] = output
            if _State.consumer is not None:
                layer = int(getattr(module, "layer_idx", -1))
                _State.consumer(layer, weights, value, past + begin)
    assert whole is not None
    return whole, None


@contextmanager
def _repeated(
    module: torch.nn.Module, key: torch.Tensor, value: torch.Tensor, several_blocks: bool
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Keys and values with a head for every query head, once for all blocks.

    The model's function repeats them on every call, which would cost more than all the rest of a
    small block; within this it is told that there is nothing to repeat.
    """
    groups = getattr(module, "num_key_value_groups", 1)
    if groups == 1 or not several_blocks:
        yield key, value
        return
    module.num_key_value_groups = 1  # type: ignore[assignment]
    try:
        yield key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    finally:
        module.num_key_value_groups = groups  # type: ignore[assignment]


def _register() -> None:
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface, eager_mask

    AttentionInterface.register(IMPLEMENTATION, _captured_attention)
    AttentionMaskInterface.register(IMPLEMENTATION, eager_mask)


@contextmanager
def capturing(model: Any, consumer: Consumer, rows: int | None = None) -> Iterator[None]:
    """Within it, a forward pass of ``model`` gives its attention to ``consumer``.

    Args:
        model: a model of transformers.
        consumer: called for every block of rows of every attention layer.
        rows: query rows of a block; None decides from the shape.
    """
    _register()
    before = model.config.get_text_config()._attn_implementation
    _State.consumer, _State.rows = consumer, rows
    try:
        model.set_attn_implementation(IMPLEMENTATION)
        yield
    finally:
        _State.consumer = _State.rows = None
        model.set_attn_implementation(before)
