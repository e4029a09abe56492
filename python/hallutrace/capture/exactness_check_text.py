"""The text on which a model is checked: longer than its windows, where that is cheap."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import torch

from hallutrace.model.loading import Loaded

LONGEST, SHORTEST = 512, 24

# Parameters times tokens of a pass (a few seconds), and bytes of all layers' attention.
WORK = {"cpu": 2e11, "cuda": 1e13}
ATTENTION_BYTES = 1 << 28

# Tokens of the text that differ.
DISTINCT = 16

# Integers of a configuration from which on a token does not see every token before it.
LIMITS = re.compile(r"window|chunk|index_|block_size|compress|local|sparse")


def text_of(loaded: Loaded) -> list[int]:
    """Random tokens, longer than windows where that is cheap.

    Tokens of special meaning are left out. Few tokens come often, as in any text: keys that are
    the same for the same token are tied, and what a model then chooses may depend on the padding.
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
    return [allowed[at] for at in order]


def text_length(loaded: Loaded) -> int:
    """Tokens of the check's text: half as many again as the longest window that is in reach."""
    config = loaded.model.config.get_text_config()
    parameters = sum(weight.numel() for weight in loaded.model.parameters())
    heads = getattr(config, "num_attention_heads", 1) or 1
    heads = heads if isinstance(heads, int) else max(heads)
    most = min(
        LONGEST,
        int(WORK["cpu" if loaded.device.type == "cpu" else "cuda"] / max(1, parameters)),
        int((ATTENTION_BYTES / (8 * loaded.layers * heads)) ** 0.5),
        loaded.longest or LONGEST,
    )
    most = max(most, min(SHORTEST, loaded.longest or SHORTEST))
    limits = [limit for limit in limits_of(config) if limit * 3 // 2 + 8 <= most]
    return max(min(SHORTEST, most), *(limit * 3 // 2 + 8 for limit in limits), 0)


def limits_of(config: Any) -> Iterator[int]:
    """Integers of a configuration that limit what a token attends to."""
    for name, value in vars(config).items():
        if LIMITS.search(name):
            values = value if isinstance(value, (list, tuple)) else [value]
            yield from (limit for limit in values if type(limit) is int and limit > 1)
