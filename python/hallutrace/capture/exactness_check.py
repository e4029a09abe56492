"""A short input through a model before any question costs time: the facts of its attention."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from hallutrace.capture.attention_hook import capturing
from hallutrace.capture.native_attention_check import Native, check_native, refused
from hallutrace.capture.tolerance import Tolerance, logits_apart
from hallutrace.model.loading import Loaded
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
            replay on a tiny input; about 1e-7 in float32, larger under quantisation. None where
            the model keeps no cache that could be followed.
    """

    layers: list[int]
    heads: list[int]
    value_heads: list[int]
    windows: list[int | None]
    deviation: float | None


# Tokens that are read one by one.
STEPS = 6


def probe(loaded: Loaded, hidden: bool = True) -> AttentionFacts:
    """Compares a capture with the model's own attention and logits, before any question costs time.

    Args:
        loaded: the model.
        hidden: whether its hidden states will be asked for.

    Raises:
        ModelError: the model cannot be traced exactly; the message says what differs.
    """
    native = check_native(loaded, hidden)
    layers = sorted(native.weights)
    config = loaded.model.config.get_text_config()
    return AttentionFacts(
        layers=layers,
        heads=[native.weights[layer].shape[0] for layer in layers],
        value_heads=[native.value_heads[layer] for layer in layers],
        windows=_windows(config, layers),
        deviation=_deviation(loaded, native),
    )


def _deviation(loaded: Loaded, native: Native) -> float | None:
    """Largest difference between rows of step-by-step generation and those of one forward pass.

    The last tokens of the text are read one by one, after all others, beyond windows and indices.

    Raises:
        ModelError: the steps give other logits than the forward pass, in more than rounding.
    """
    model = loaded.model
    steps: list[tuple[int, int, torch.Tensor]] = []
    logits = []
    ids = torch.tensor([native.tokens], device=loaded.device)
    first = ids.shape[1] - STEPS
    accepted = inspect.signature(model.forward).parameters

    def told(begin: int, end: int) -> dict[str, torch.Tensor]:
        """What generation gives beside the tokens."""
        given = {"attention_mask": torch.ones_like(ids[:, :end])}
        if "position_ids" in accepted:
            given["position_ids"] = torch.arange(begin, end, device=ids.device)[None]
        return given

    with torch.inference_mode():
        cache = cache_of(model(input_ids=ids[:, :first], use_cache=True, **told(0, first)))
        if cache is None:
            return None
        for at in range(first, ids.shape[1]):

            def keep(layer: int, weights: torch.Tensor, *_: Any, query: int = at) -> None:
                steps.append((layer, query, weights[0, :, 0].float().cpu()))

            with capturing(model, keep):
                output = model(
                    input_ids=ids[:, at : at + 1],
                    use_cache=True,
                    **cache_argument(cache),
                    **told(at, at + 1),
                )
            logits.append(output.logits[0, -1:].float().cpu())
    worst = 0.0
    for layer, query, row in steps:
        keys = min(row.shape[-1], query + 1)  # of a window the last ones
        replayed = native.weights[layer][:, query, query + 1 - keys : query + 1]
        worst = max(worst, float((row[:, row.shape[-1] - keys :] - replayed).abs().max()))
    # The last row produced no token of the text, so it has no logits there.
    apart = logits_apart(torch.cat(logits[:-1]), native.logits[1 - STEPS :])
    if not apart <= Tolerance.of(model).logits:
        raise refused(
            loaded,
            "generating step by step gives other logits than one forward pass (by "
            f"{apart:.2g} of their spread, attention by up to {worst:.2g})",
        )
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
