"""Forward passes of a model without one of its heads or layers.

A head is ablated where its output enters the output projection of its attention: its part of the
input is zero, as if its columns of the projection were. A layer is ablated by handing on what came
into its block. The model itself is not changed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from hallutrace.errors import ModelError

# Names of the output projection of attention in transformers, the commonest first.
PROJECTIONS = ("o_proj", "out_proj", "c_proj", "dense", "wo", "out_projection", "o")


@dataclass(frozen=True)
class Ablated:
    """What is left out of a forward pass.

    Attributes:
        layer: number in the model, from 0.
        head: of that layer, from 0; None for the whole layer.
    """

    layer: int
    head: int | None = None


@contextmanager
def ablating(model: torch.nn.Module, part: Ablated, heads: int) -> Iterator[None]:
    """A context in which forward passes of a model are without a head or a layer.

    Args:
        model: a causal language model of transformers.
        part: what is left out.
        heads: heads of that layer.

    Raises:
        ModelError: the layer, or the output projection of its attention, is not found.
    """
    block, projection = _parts(model, part.layer)
    if part.head is None:
        with _passing_on(block):
            yield
        return
    handle = projection.register_forward_pre_hook(_without_head(part.head, heads))
    try:
        yield
    finally:
        handle.remove()


def _parts(model: torch.nn.Module, layer: int) -> tuple[torch.nn.Module, torch.nn.Module]:
    """The block of a layer, and the output projection of its attention."""
    for blocks in model.modules():
        if not isinstance(blocks, torch.nn.ModuleList) or layer >= len(blocks):
            continue
        for module in blocks[layer].modules():
            if getattr(module, "layer_idx", None) != layer:
                continue
            children = dict(module.named_children())
            for name in PROJECTIONS:
                if name in children:
                    return blocks[layer], children[name]
    raise ModelError(
        f"Expected a model whose attention ends in one of {', '.join(PROJECTIONS)}, got none in "
        f"layer {layer} of {type(model).__name__} - ablate a layer of another model"
    )


@contextmanager
def _passing_on(block: Any) -> Iterator[None]:
    """A context in which a block gives what it was given.

    Its ``forward`` still runs, for those who capture its attention. It is replaced, and no hook is
    used, because the hooks by which transformers collects hidden states may come before.
    """
    before, is_own = block.forward, "forward" in vars(block)

    def forward(*args: Any, **kwargs: Any) -> Any:
        output = before(*args, **kwargs)
        states = args[0] if args else kwargs["hidden_states"]
        return (states, *output[1:]) if isinstance(output, tuple) else states

    block.forward = forward
    try:
        yield
    finally:
        if is_own:
            block.forward = before
        else:
            del block.forward


def _without_head(head: int, heads: int) -> Any:
    def zeroed(_: Any, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        size = args[0].shape[-1] // heads
        states = args[0].clone()
        states[..., head * size : (head + 1) * size] = 0
        return states, *args[1:]

    return zeroed
