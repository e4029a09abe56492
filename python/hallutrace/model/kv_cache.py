"""Keys and values while answers are generated: written in place, prompts computed once.

transformers' own cache grows by copying all of itself for every token, its beam search copies it
once more to follow the beams, and every beam and sample computes the prompt anew. Here the prompt
(but its last token) is computed once and repeated; room for the answer is taken at once; and
following the beams moves only what differs between a beam and the one it continues: beams of a
question share its prompt, and most of their answers but the last tokens.
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
    """Keys and values of one layer, [sequences, key heads, tokens, width].

    Args:
        room: tokens that are expected after the first ones; more cost a copy.
    """

    keys: torch.Tensor
    values: torch.Tensor

    def __init__(self, room: int) -> None:
        super().__init__()
        self._room = room
        self._buffers: list[torch.Tensor] = []

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Appends the keys and values of new tokens; gives those of all tokens."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        before, new = self.get_seq_length(), key_states.shape[-2]
        if not self._buffers or before + new > self._buffers[0].shape[-2]:
            old = [self.keys, self.values] if before else []
            self._buffers = [
                self._roomy(states, before + new) for states in (key_states, value_states)
            ]
            for buffer, states in zip(self._buffers, old, strict=False):
                buffer[:, :, :before] = states
        for buffer, states in zip(self._buffers, (key_states, value_states), strict=True):
            buffer[:, :, before : before + new] = states
        self.keys, self.values = (buffer[:, :, : before + new] for buffer in self._buffers)
        return self.keys, self.values

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Repeats each sequence, with room for what comes."""
        length = self.get_seq_length()
        if not length:  # a layer that a text passes by, as one that attends to images
            return
        repeated = [states.repeat_interleave(repeats, 0) for states in (self.keys, self.values)]
        self._buffers = [self._roomy(states, length) for states in repeated]
        for buffer, states in zip(self._buffers, repeated, strict=True):
            buffer[:, :, :length] = states
        self.keys, self.values = (buffer[:, :, :length] for buffer in self._buffers)

    def move(self, first: int, to: torch.Tensor, source: torch.Tensor) -> None:
        """Gives sequences ``to`` the tokens from ``first`` on of sequences ``source``."""
        if not self.get_seq_length():
            return
        to, source = to.to(self.keys.device), source.to(self.keys.device)
        for states in (self.keys, self.values):
            moving = states[:, :, first:]
            moving.index_copy_(0, to, moving.index_select(0, source))

    def _roomy(self, states: torch.Tensor, length: int) -> torch.Tensor:
        sequences, heads, _, width = states.shape
        return states.new_empty((sequences, heads, length + self._room, width))


class InPlaceCache(DynamicCache):  # type: ignore[misc]
    """Keys and values of all layers, which knows what beams share.

    Args:
        config: of the model.
        room: tokens that are expected after the first ones.
    """

    def __init__(self, config: Any, room: int) -> None:
        super().__init__(config=config)
        self.layers: list[Any] = [
            InPlaceLayer(room) if type(layer) is DynamicLayer else layer for layer in self.layers
        ]
        self._repeated = 0  # tokens that are the same for all beams of a question
        # The sequence that each token behind those was computed for, [sequences, tokens]. Two beams
        # of a question that name the same one hold the same keys and values there.
        self._origins: torch.Tensor | None = None

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Repeats each sequence; tokens so far are the same for all repeats from now on."""
        self._repeated = self.get_seq_length()
        super().batch_repeat_interleave(repeats)

    def reorder_cache(self, beam_idx: torch.Tensor) -> None:
        """Lets every beam continue another one of the same question."""
        source = beam_idx.cpu()
        origins = self._origins_so_far(len(source))
        self._origins = origins[source]
        differs = self._origins != origins
        tokens, moved = (differs.any(axis).nonzero().flatten() for axis in (0, 1))
        to, source = moved.to(beam_idx.device), source[moved].to(beam_idx.device)
        for layer in self.layers:
            if not isinstance(layer, InPlaceLayer):
                layer.reorder_cache(beam_idx)
            elif len(moved):
                layer.move(self._repeated + int(tokens[0]), to, source)

    def _origins_so_far(self, sequences: int) -> torch.Tensor:
        """Origins of all tokens; those that came since the last time are everyone's own."""
        known = self._origins
        if known is None:
            known = torch.empty(sequences, 0, dtype=torch.int64)
        new = self.get_seq_length() - self._repeated - known.shape[1]
        return torch.cat([known, torch.arange(sequences)[:, None].expand(-1, new)], dim=1)


def prepare(
    loaded: Loaded, ids: torch.Tensor, mask: torch.Tensor, copies: int, new_tokens: int
) -> DynamicCache | None:
    """A cache for ``generate``, holding all tokens of the prompts but the last.

    Args:
        loaded: the model.
        ids: prompts, padded on the left, int64 [prompts, tokens].
        mask: 1 where a token is no padding, [prompts, tokens].
        copies: beams or samples that go on from each prompt.
        new_tokens: longest answer.

    Returns:
        None where the model keeps something else than keys and values; transformers' own way is
        right there.
    """
    cache = InPlaceCache(loaded.model.config, new_tokens)
    known = (InPlaceLayer, DynamicSlidingWindowLayer)
    if any(type(layer) not in known for layer in cache.layers):
        return None
    before = ids.shape[1] - 1
    if copies == 1 or before == 0:
        return cache
    accepted = inspect.signature(loaded.model.forward).parameters
    # As generate() itself counts them.
    positions = (mask.cumsum(-1) - 1).masked_fill(mask == 0, 0)[:, :before]
    inputs = loaded.model.prepare_inputs_for_generation(
        ids[:, :before],
        attention_mask=mask[:, :before],
        **cache_argument(cache),
        use_cache=True,
        is_first_iteration=True,
        **({"position_ids": positions} if "position_ids" in accepted else {}),
    )
    if "logits_to_keep" in accepted:
        inputs["logits_to_keep"] = 1
    with torch.inference_mode():
        loaded.model(**inputs)
    cache.batch_repeat_interleave(copies)
    return cache
