"""Parsing of ``--chat-template-kwargs``: YAML or a mapping, to values that JSON has."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import date, time
from typing import Any

import yaml

# Arguments that hallutrace or the tokenizer gives to the chat template.
_RESERVED = {
    "add_generation_prompt",
    "chat_template",
    "continue_final_message",
    "conversation",
    "max_length",
    "messages",
    "padding",
    "return_assistant_tokens_mask",
    "return_dict",
    "return_tensors",
    "sanitize_control_tokens",
    "strftime_now",
    "tokenize",
    "tokenizer_kwargs",
    "truncation",
}


def chat_arguments(value: Any) -> Any:
    """Arguments of a chat template, checked.

    Args:
        value: a mapping, or YAML text of one. Anything else is returned as it is.

    Raises:
        ValueError: what was expected of them, as pydantic's validators raise it.

    Examples:
        >>> chat_arguments("{enable_thinking: false, day: 2024-07-26}")
        {'enable_thinking': False, 'day': '2024-07-26'}
    """
    if isinstance(value, str):
        try:
            value = yaml.safe_load(value)
        except yaml.YAMLError as error:
            reason = " ".join(str(error).split())
            raise ValueError(f"YAML such as '{{enable_thinking: false}}' ({reason})") from None
    if not isinstance(value, Mapping):
        return value
    reserved = sorted(_RESERVED & value.keys())
    if reserved:
        raise ValueError(
            f"arguments that the template itself defines, without {', '.join(reserved)}"
        )
    return _as_json(value)


def _as_json(value: Any) -> Any:
    """A value of YAML as JSON has it: dates become text, as templates expect them."""
    if isinstance(value, (date, time)):
        return value.isoformat()
    if isinstance(value, Mapping):
        for name in value:
            if not isinstance(name, str):
                raise ValueError(f"names that are text, not {name!r}")
        return {name: _as_json(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_as_json(one) for one in value]
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    raise ValueError(f"text, numbers, true, false, lists and mappings, not {value!r}")
