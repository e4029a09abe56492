"""A key-value cache for generation that is preallocated and computes each prompt once.

The cache of transformers copies all keys and values for every new token and once more when beams
are reordered, and every beam and sample computes the prompt again. Here the prompt, except for its
last token, is computed once and repeated; buffers are allocated for the whole answer; and
reordering copies only the tokens that differ between a beam and the beam that it continues: beams
of a question share its prompt and usually most of their answers.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from hallutrace.model.loading import Loaded
from hallutrace.transformers_compat import cache_argument


class InPlaceLayer(DynamicLayer):  # type: ignore[misc]
    """Keys and values of one layer, [sequences, key heads, tokens, head dimension].

    Args:
        reserve: tokens to preallocate beyond the first update; more tokens cause a copy.
    """

    keys: torch.Tensor
    values: torch.Tensor

    def __init__(self, reserve: int) -> None:
        super().__init__()
        self._reserve = reserve
        self._buffers: list[torch.Tensor] = []

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Appends the keys and values of new tokens and returns those of all tokens."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        before, new = self.get_seq_length(), key_states.shape[-2]
        if not self._buffers or before + new > self._buffers[0].shape[-2]:
            old = [self.keys, self.values] if before else []
            self._buffers = [
                self._allocate(states, before + new) for states in (key_states, value_states)
            ]
            for buffer, states in zip(self._buffers, old, strict=False):
                buffer[:, :, :before] = states
        for buffer, states in zip(self._buffers, (key_states, value_states), strict=True):
            buffer[:, :, before : before + new] = states
        self.keys, self.values = (buffer[:, :, : before + new] for buffer in self._buffers)
        return self.keys, self.values

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Repeats each sequence and preallocates buffers for the answers."""
        length = self.get_seq_length()
        if not length:  # a layer that text does not use, such as cross-attention to images
            return
        repeated = [states.repeat_interleave(repeats, 0) for states in (self.keys, self.values)]
        self._buffers = [self._allocate(states, length) for states in repeated]
        for buffer, states in zip(self._buffers, repeated, strict=True):
            buffer[:, :, :length] = states
        self.keys, self.values = (buffer[:, :, :length] for buffer in self._buffers)

    def move(self, first: int, to: torch.Tensor, source: torch.Tensor) -> None:
        """Copies the tokens from ``first`` on from sequences ``source`` to sequences ``to``."""
        if not self.get_seq_length():
            return
        to, source = to.to(self.keys.device), source.to(self.keys.device)
        for states in (self.keys, self.values):
            tail = states[:, :, first:]
            tail.index_copy_(0, to, tail.index_select(0, source))

    def _allocate(self, states: torch.Tensor, length: int) -> torch.Tensor:
        sequences, heads, _, head_dim = states.shape
        return states.new_empty((sequences, heads, length + self._reserve, head_dim))


class InPlaceCache(DynamicCache):  # type: ignore[misc]
    """Keys and values of all layers, with a record of what beams share.

    Args:
        config: the model's configuration.
        reserve: tokens to preallocate beyond the first update.
    """

    def __init__(self, config: Any, reserve: int) -> None:
        super().__init__(config=config)
        self.layers: list[Any] = [
            InPlaceLayer(reserve) if type(layer) is DynamicLayer else layer for layer in self.layers
        ]
        self._repeated = 0  # number of first tokens that all beams of a question share
        # For each later token, the index of the sequence that computed it, [sequences, tokens].
        # Beams with the same index at a token have the same keys and values there.
        self._origins: torch.Tensor | None = None

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Repeats each sequence; its tokens so far are shared by all its copies."""
        self._repeated = self.get_seq_length()
        super().batch_repeat_interleave(repeats)

    def reorder_cache(self, beam_idx: torch.Tensor) -> None:
        """Makes sequence i continue sequence ``beam_idx[i]``, a beam of the same question."""
        source = beam_idx.cpu()
        origins = self._extended_origins(len(source))
        self._origins = origins[source]
        differs = self._origins != origins
        tokens, changed = (differs.any(axis).nonzero().flatten() for axis in (0, 1))
        to, source = changed.to(beam_idx.device), source[changed].to(beam_idx.device)
        for layer in self.layers:
            if not isinstance(layer, InPlaceLayer):
                layer.reorder_cache(beam_idx)
            elif len(changed):
                layer.move(self._repeated + int(tokens[0]), to, source)

    def _extended_origins(self, sequences: int) -> torch.Tensor:
        """Origins of all tokens; each sequence computed its own tokens since the last reorder."""
        origins = self._origins
        if origins is None:
            origins = torch.empty(sequences, 0, dtype=torch.int64)
        new = self.get_seq_length() - self._repeated - origins.shape[1]
        return torch.cat([origins, torch.arange(sequences)[:, None].expand(-1, new)], dim=1)


def prepare(
    loaded: Loaded, ids: torch.Tensor, mask: torch.Tensor, copies: int, new_tokens: int
) -> DynamicCache | None:
    """A cache for ``generate``; with several copies it holds all prompt tokens but the last.

    Args:
        loaded: the model.
        ids: prompts, padded on the left, int64 [prompts, tokens].
        mask: int64 [prompts, tokens], 1 for a token of the prompt, 0 for padding.
        copies: number of beams or samples of each prompt.
        new_tokens: maximum number of tokens of an answer.

    Returns:
        The cache; None if the model has a state other than keys and values, so that ``generate``
        must make its own cache.
    """
    cache = InPlaceCache(loaded.model.config, new_tokens)
    supported = (InPlaceLayer, DynamicSlidingWindowLayer)
    if any(type(layer) not in supported for layer in cache.layers):
        return None
    before = ids.shape[1] - 1
    if copies == 1 or before == 0:
        return cache
    parameters = inspect.signature(loaded.model.forward).parameters
    # Computed as in generate().
    positions = (mask.cumsum(-1) - 1).masked_fill(mask == 0, 0)[:, :before]
    inputs = loaded.model.prepare_inputs_for_generation(
        ids[:, :before],
        attention_mask=mask[:, :before],
        **cache_argument(cache),
        use_cache=True,
        is_first_iteration=True,
        **({"position_ids": positions} if "position_ids" in parameters else {}),
    )
    if "logits_to_keep" in parameters:
        inputs["logits_to_keep"] = 1
    with torch.inference_mode():
        loaded.model(**inputs)
    cache.batch_repeat_interleave(copies)
    return cache
