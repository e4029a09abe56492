"""One tiny input through a model, before any question costs time: can its attention be captured?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from hallutrace.attention import capturing
from hallutrace.errors import ModelError
from hallutrace.models import Loaded
from hallutrace.transformers_compat import cache_argument, cache_of


@dataclass(frozen=True, slots=True)
class AttentionFacts:
    """What a probe of the model found.

    Attributes:
        layers: numbers of the layers whose attention is captured.
        heads: query heads of each.
        value_heads: value heads of each.
        windows: sliding window of each in tokens; None where it sees all.
        deviation: largest difference between an attention weight of step-by-step generation and of
        the
            replay on a tiny input; about 1e-7 in float32, larger under quantisation.
    """

    layers: list[int]
    heads: list[int]
    value_heads: list[int]
    windows: list[int | None]
    deviation: float


def probe(loaded: Loaded, tokens: int = 12) -> AttentionFacts:
    """Captures one tiny input, before any question costs time.

    Raises:
        ModelError: nothing was captured: the model does not use transformers' attention interface.
    """
    vocabulary = loaded.model.config.get_text_config().vocab_size
    ids = torch.arange(1, tokens + 1)[None].remainder(vocabulary).to(loaded.device)
    whole: dict[int, torch.Tensor] = {}
    value_heads: dict[int, int] = {}
    steps: list[tuple[int, int, torch.Tensor]] = []

    def keep(layer: int, weights: torch.Tensor, value: torch.Tensor, first: int) -> None:
        whole[layer] = weights[0].float().cpu()
        value_heads[layer] = value.shape[1]

    def compare(layer: int, weights: torch.Tensor, value: torch.Tensor, first: int) -> None:
        steps.append((layer, first, weights[0, :, 0].float().cpu()))

    model = loaded.model
    with torch.inference_mode():
        with capturing(model, keep):
            model(input_ids=ids, use_cache=False)
        if not whole:
            raise ModelError(
                f"Expected a model whose attention can be captured, got {loaded.name} "
                f"({model.config.model_type}), which does not use transformers' attention "
                "interface - choose another architecture "
                "(llama, qwen, mistral, gemma, phi, gpt2 ...)"
            )
        half = tokens // 2
        cache = cache_of(model(input_ids=ids[:, :half], use_cache=True))
        with capturing(model, compare):
            for at in range(half, tokens):
                model(input_ids=ids[:, at : at + 1], use_cache=True, **cache_argument(cache))
    layers = sorted(whole)
    return AttentionFacts(
        layers=layers,
        heads=[whole[layer].shape[0] for layer in layers],
        value_heads=[value_heads[layer] for layer in layers],
        windows=_windows(model.config.get_text_config(), layers),
        deviation=_deviation(whole, steps, half),
    )


def _deviation(
    whole: dict[int, torch.Tensor], steps: list[tuple[int, int, torch.Tensor]], first: int
) -> float:
    """Largest difference between generated rows [heads, keys] and the replay's, last keys first."""
    seen: dict[int, int] = {}
    worst = 0.0
    for layer, _, row in steps:
        query = first + seen.get(layer, 0)
        seen[layer] = seen.get(layer, 0) + 1
        keys = min(row.shape[-1], query + 1)
        replayed = whole[layer][:, query, query + 1 - keys : query + 1]
        worst = max(worst, float((row[:, row.shape[-1] - keys :] - replayed).abs().max()))
    return worst


def _windows(config: Any, layers: Sequence[int]) -> list[int | None]:
    window = getattr(config, "sliding_window", None)
    kinds = getattr(config, "layer_types", None)
    if not window:
        return [None] * len(layers)
    if not kinds:
        uses = getattr(config, "use_sliding_window", True)
        return [int(window) if uses else None] * len(layers)
    return [int(window) if "sliding" in kinds[layer] else None for layer in layers]
