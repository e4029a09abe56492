"""The batches of a shard, and the batch size that fits into memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

MEMORY_SHARE = 0.25  # of the free memory, for the caches and logits of a batch
LARGEST = {"cpu": 64, "cuda": 128}
ASSUMED_PROMPT = 192  # tokens; the longest prompts of a shard share a batch


def plan_batches(lengths: Sequence[int], size: int) -> list[list[int]]:
    """Batches of prompts of similar lengths.

    They depend on the whole shard only, not on what of it is still to do, because results depend,
    in their last bits, on the other prompts of a batch.

    Args:
        lengths: tokens of each prompt of the shard.
        size: prompts per batch.

    Returns:
        Indices into ``lengths``; shorter prompts first, equal ones in their order.

    Example:
        >>> plan_batches([9, 3, 5], size=2)
        [[1, 2], [0]]
    """
    order = sorted(range(len(lengths)), key=lambda at: (lengths[at], at))
    return [order[at : at + size] for at in range(0, len(order), size)]


def cache_bytes_per_token(text_config: Any, bytes_per_element: int) -> int:
    """Bytes of keys and values of one token in the cache of all layers."""
    heads = text_config.num_attention_heads
    key_heads = getattr(text_config, "num_key_value_heads", None) or heads
    width = getattr(text_config, "head_dim", None) or text_config.hidden_size // heads
    return int(2 * text_config.num_hidden_layers * key_heads * width * bytes_per_element)


def auto_batch_size(
    text_config: Any, *, beams: int, new_tokens: int, bytes_per_element: int, device: str, free: int
) -> int:
    """The largest power of two that fits into a quarter of the free memory.

    Args:
        text_config: the model's configuration.
        beams: sequences per question.
        new_tokens: longest answer.
        bytes_per_element: of the cache.
        device: ``cpu`` or ``cuda``.
        free: bytes of memory that are free there.

    Returns:
        Questions per batch, at least 1.
    """
    cache = cache_bytes_per_token(text_config, bytes_per_element) * (ASSUMED_PROMPT + new_tokens)
    # Logits of a step in float32, and the copies that log-softmax and sorting make of them.
    logits = 4 * 4 * text_config.vocab_size
    fits = int(free * MEMORY_SHARE) // (beams * (cache + logits))
    size = 1 << max(0, fits.bit_length() - 1)
    return int(max(1, min(size, LARGEST.get(device, 64))))
