"""Differences between the versions of transformers that hallutrace runs with, all in one place.

Tried with 5.6 to 5.24; the bounds in ``pyproject.toml`` say the same.
"""

from __future__ import annotations

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
    """The key-value cache in a model's output."""
    return getattr(output, cache_name())
