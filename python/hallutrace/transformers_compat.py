"""Differences between the versions of transformers that hallutrace runs with, all in one place.

Tried with 5.6 to 5.24; the bounds in ``pyproject.toml`` say the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from functools import cache
from typing import Any


@cache
def cache_name() -> str:
    """What a model's forward and ``generate`` call the key-value cache, in arguments and outputs.

    Returns:
        ``cache`` from transformers 5.24 on, ``past_key_values`` before.
    """
    from transformers.modeling_outputs import CausalLMOutputWithPast

    names = {field.name for field in fields(CausalLMOutputWithPast)}
    return "cache" if "cache" in names else "past_key_values"


def cache_argument(cache: Any) -> dict[str, Any]:
    """The keyword argument that hands a key-value cache to a model or to ``generate``."""
    return {cache_name(): cache}


def cache_of(output: Any) -> Any:
    """The key-value cache in a model's output; None where the model keeps its state elsewhere."""
    return getattr(output, cache_name(), None)


@contextmanager
def attention_implementation(model: Any, name: str) -> Iterator[None]:
    """Within it, every part of a model attends by the implementation ``name``.

    ``set_attn_implementation`` would leave out layers that have a copy of the configuration, and
    would set all parts to one implementation afterwards.
    """
    configs = {id(config): config for config in _configs(model)}.values()
    before = [config._attn_implementation_internal for config in configs]
    try:
        for config in configs:
            config._attn_implementation_internal = name
        yield
    finally:
        for config, implementation in zip(configs, before, strict=True):
            config._attn_implementation_internal = implementation


def _configs(model: Any) -> Iterator[Any]:
    for module in model.modules():
        config = getattr(module, "config", None)
        if hasattr(config, "_attn_implementation_internal"):
            yield config
