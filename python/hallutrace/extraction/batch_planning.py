"""Assigns the prompts of a shard to batches and chooses the batch size from free memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

MEMORY_SHARE = 0.25  # share of free memory for the key-value cache and logits of a batch
LARGEST = {"cpu": 64, "cuda": 128}
ASSUMED_PROMPT = 192  # tokens; above the mean, as the longest prompts of a shard share a batch


def plan_batches(lengths: Sequence[int], size: int) -> list[list[int]]:
    """Groups prompts of similar lengths into batches.

    The last bits of a result depend on the other prompts of its batch, so the batches of a resumed
    shard must not depend on the prompts that were already done: pass all prompts of the shard.

    Args:
        lengths: number of tokens of each prompt of the shard.
        size: prompts per batch.

    Returns:
        Indices into ``lengths`` of each batch, by increasing length, then by index.

    Examples:
        >>> plan_batches([9, 3, 5], size=2)
        [[1, 2], [0]]
    """
    order = sorted(range(len(lengths)), key=lambda index: (lengths[index], index))
    return [order[first : first + size] for first in range(0, len(order), size)]


def cache_bytes_per_token(text_config: Any, bytes_per_element: int) -> int:
    """Bytes of the key-value cache of one token, over all layers.

    Args:
        text_config: the text configuration of a transformers model.
        bytes_per_element: bytes of one element of the cache.

    Examples:
        >>> from transformers import LlamaConfig
        >>> config = LlamaConfig(hidden_size=64, num_attention_heads=4, num_hidden_layers=2)
        >>> cache_bytes_per_token(config, bytes_per_element=2)
        512
    """
    heads = text_config.num_attention_heads
    kv_heads = getattr(text_config, "num_key_value_heads", None) or heads
    head_dim = getattr(text_config, "head_dim", None) or text_config.hidden_size // heads
    return int(2 * text_config.num_hidden_layers * kv_heads * head_dim * bytes_per_element)


def auto_batch_size(
    text_config: Any, *, beams: int, new_tokens: int, bytes_per_element: int, device: str, free: int
) -> int:
    """The largest batch size, a power of two, that fits into a quarter of the free memory.

    Args:
        text_config: the text configuration of a transformers model.
        beams: sequences per question.
        new_tokens: maximum number of tokens of an answer.
        bytes_per_element: bytes of one element of the key-value cache.
        device: ``cpu`` or ``cuda``.
        free: free memory of the device in bytes.

    Returns:
        Questions per batch, from 1 to ``LARGEST[device]``.

    Examples:
        >>> from transformers import LlamaConfig
        >>> shape = {"beams": 1, "new_tokens": 64, "bytes_per_element": 2, "device": "cuda"}
        >>> auto_batch_size(LlamaConfig(), **shape, free=8 << 30)
        8
    """
    cache = cache_bytes_per_token(text_config, bytes_per_element) * (ASSUMED_PROMPT + new_tokens)
    # Float32 logits of one decoding step; log-softmax and sorting make three copies of them.
    logits = 4 * 4 * text_config.vocab_size
    max_questions = int(free * MEMORY_SHARE) // (beams * (cache + logits))
    size = 1 << max(0, max_questions.bit_length() - 1)
    return int(max(1, min(size, LARGEST.get(device, 64))))
