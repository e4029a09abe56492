"""Checks on a short text that the attention of a model can be captured exactly."""

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
    """Properties of the captured attention.

    Attributes:
        layers: indices of the captured layers.
        heads: query heads of each captured layer.
        value_heads: value heads of each captured layer.
        windows: sliding window of each captured layer in tokens; None without a window.
        deviation: largest absolute difference between attention weights of token-by-token
            decoding and of the replay; about 1e-7 in float32, larger with quantisation. None if
            the model returns no key-value cache.
    """

    layers: list[int]
    heads: list[int]
    value_heads: list[int]
    windows: list[int | None]
    deviation: float | None


# Tokens that are decoded one by one.
STEPS = 6


def probe(loaded: Loaded, hidden: bool = True) -> AttentionFacts:
    """Compares a capture with the model's own attention and logits.

    Args:
        loaded: the model.
        hidden: whether to check the hidden states as well.

    Raises:
        ModelError: the capture would not be exact; the message says what differs.

    Examples:
        >>> from hallutrace import ExtractConfig
        >>> from hallutrace.model.loading import load
        >>> facts = probe(load(ExtractConfig(model="demo", device="cpu")))
        >>> facts.layers, facts.deviation < 1e-5
        ([0, 1, 2, 3], True)
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
    """Largest difference between attention rows of token-by-token decoding and of one pass.

    The last ``STEPS`` tokens of the text are decoded one by one, at positions beyond the windows
    and indices of the model.

    Raises:
        ModelError: the logits differ by more than the tolerance.
    """
    decoded = _decode(loaded, native.tokens)
    if decoded is None:
        return None
    rows, logits = decoded
    worst = 0.0
    for layer, query, row in rows:
        keys = min(row.shape[-1], query + 1)  # a layer with a window returns the last keys only
        replayed = native.weights[layer][:, query, query + 1 - keys : query + 1]
        worst = max(worst, float((row[:, row.shape[-1] - keys :] - replayed).abs().max()))
    # The last step predicts a token after the text, for which the pass kept no logits.
    apart = logits_apart(logits[:-1], native.logits[1 - STEPS :])
    if not apart <= Tolerance.of(loaded.model).logits:
        raise refused(
            loaded,
            "generating step by step gives other logits than one forward pass (by "
            f"{apart:.2g} of their spread, attention by up to {worst:.2g})",
        )
    return worst


def _decode(
    loaded: Loaded, tokens: Sequence[int]
) -> tuple[list[tuple[int, int, torch.Tensor]], torch.Tensor] | None:
    """Decodes the last ``STEPS`` tokens of a text one by one, with a key-value cache.

    Returns:
        Layer, query and attention row [heads, keys] of each, and the logits [STEPS, vocabulary]
        after each token; None if the model returns no cache.
    """
    model = loaded.model
    rows: list[tuple[int, int, torch.Tensor]] = []
    logits = []
    ids = torch.tensor([tokens], device=loaded.device)
    first = ids.shape[1] - STEPS
    accepted = inspect.signature(model.forward).parameters

    def arguments(begin: int, end: int) -> dict[str, torch.Tensor]:
        """The arguments that generation passes besides the tokens."""
        kwargs = {"attention_mask": torch.ones_like(ids[:, :end])}
        if "position_ids" in accepted:
            kwargs["position_ids"] = torch.arange(begin, end, device=ids.device)[None]
        return kwargs

    with torch.inference_mode():
        cache = cache_of(model(input_ids=ids[:, :first], use_cache=True, **arguments(0, first)))
        if cache is None:
            return None
        for position in range(first, ids.shape[1]):

            def keep(layer: int, weights: torch.Tensor, *_: Any, query: int = position) -> None:
                rows.append((layer, query, weights[0, :, 0].float().cpu()))

            with capturing(model, keep):
                output = model(
                    input_ids=ids[:, position : position + 1],
                    use_cache=True,
                    **cache_argument(cache),
                    **arguments(position, position + 1),
                )
            logits.append(output.logits[0, -1:].float().cpu())
    return rows, torch.cat(logits)


def _windows(config: Any, layers: Sequence[int]) -> list[int | None]:
    window = getattr(config, "sliding_window", None)
    kinds = getattr(config, "layer_types", None)
    if not window:
        return [None] * len(layers)
    if not kinds:
        uses = getattr(config, "use_sliding_window", True)
        return [int(window) if uses else None] * len(layers)
    return [int(window) if "sliding" in kinds[layer] else None for layer in layers]
