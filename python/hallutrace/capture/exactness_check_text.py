"""Generates the text on which a model is checked."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import torch

from hallutrace.model.loading import Loaded

LONGEST, SHORTEST = 512, 24  # tokens

# Limits of one forward pass: parameters times tokens (a few seconds), and bytes of attention.
WORK = {"cpu": 2e11, "cuda": 1e13}
ATTENTION_BYTES = 1 << 28

# Number of distinct tokens in the text.
DISTINCT = 16

# Names of configuration values that limit how many earlier tokens a token attends to.
LIMITS = re.compile(r"window|chunk|index_|block_size|compress|local|sparse")


def text_of(loaded: Loaded) -> list[int]:
    """Random token ids, longer than the windows of the model if the limits allow it.

    Special tokens are left out. Few distinct tokens are used, so that tokens repeat as in real
    text: they may have tied keys, and a selection among ties may depend on the padding.
    """
    config = loaded.model.config
    text = config.get_text_config()
    special = {*loaded.tokenizer.all_special_ids, loaded.pad_id}
    for part in (config, text):
        for name, value in vars(part).items():
            if name.endswith(("token_id", "token_index")):
                special |= {*value} if isinstance(value, (list, tuple)) else {value}
    rng = torch.Generator().manual_seed(0)
    drawn = torch.randint(text.vocab_size, (8 * (DISTINCT + len(special)),), generator=rng).tolist()
    allowed = [token for token in dict.fromkeys(drawn) if token not in special][:DISTINCT]
    order = torch.randint(len(allowed), (text_length(loaded),), generator=rng).tolist()
    return [allowed[index] for index in order]


def text_length(loaded: Loaded) -> int:
    """Number of tokens of the text: 1.5 times the longest window that fits the limits, plus 8."""
    config = loaded.model.config.get_text_config()
    parameters = sum(weight.numel() for weight in loaded.model.parameters())
    heads = getattr(config, "num_attention_heads", 1) or 1
    heads = heads if isinstance(heads, int) else max(heads)
    max_length = min(
        LONGEST,
        int(WORK["cpu" if loaded.device.type == "cpu" else "cuda"] / max(1, parameters)),
        int((ATTENTION_BYTES / (8 * loaded.layers * heads)) ** 0.5),
        loaded.context_length or LONGEST,
    )
    max_length = max(max_length, min(SHORTEST, loaded.context_length or SHORTEST))
    limits = [limit for limit in limits_of(config) if limit * 3 // 2 + 8 <= max_length]
    return max(min(SHORTEST, max_length), *(limit * 3 // 2 + 8 for limit in limits), 0)


def limits_of(config: Any) -> Iterator[int]:
    """Integers of a configuration that limit how many earlier tokens a token attends to.

    Examples:
        >>> from types import SimpleNamespace
        >>> list(limits_of(SimpleNamespace(sliding_window=4096, hidden_size=64)))
        [4096]
    """
    for name, value in vars(config).items():
        if LIMITS.search(name):
            values = value if isinstance(value, (list, tuple)) else [value]
            yield from (limit for limit in values if type(limit) is int and limit > 1)
