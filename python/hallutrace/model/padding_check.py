"""Short prompts beside a long one and alone, before any question: does padding change them?

Prompts of a batch are filled up on the left. A model that does not mask what fills them up, or
counts positions from it, answers otherwise in company than alone, and nothing would show it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from hallutrace.errors import ModelError
from hallutrace.model.answer_ends import vocabulary_of
from hallutrace.model.generate import Decoding, generation_config, left_padded
from hallutrace.model.loading import Loaded
from hallutrace.third_party import refusing

LENGTHS = (3, 6, 11)  # tokens of the short prompts
LONG = 23  # tokens of the prompt beside them
# In standard deviations of the logits: rounding is below, a model that sees its padding far above.
EXACT, ROUNDED = 1e-3, 0.25


def sees_padding(loaded: Loaded) -> bool:
    """Whether prompts of a batch change each other by more than rounding.

    The median over prompts of several lengths decides, so that one token that rounding sends to
    another expert does not count.

    Raises:
        ModelError: the model does not generate at all.
    """
    size = vocabulary_of(loaded)
    short = [[(11 * at + 5) % size for at in range(length)] for length in LENGTHS]
    long = [(7 * at + 4) % size for at in range(LONG)]
    with refusing(
        f"a model that generates, as {loaded.name}", "try another --dtype or model", ModelError
    ):
        together = _next_logits(loaded, [*short, long])
        alone = [_next_logits(loaded, [prompt])[0] for prompt in short]
    moved = [
        float((one - other).abs().max() / one.std().clamp_min(1e-30))
        for one, other in zip(alone, together, strict=False)
    ]
    return sorted(moved)[len(moved) // 2] > _tolerance(loaded)


def _tolerance(loaded: Loaded) -> float:
    is_quantised = getattr(loaded.model.config, "quantization_config", None) is not None
    is_exact = loaded.dtype == "float32" and loaded.device.type == "cpu" and not is_quantised
    return EXACT if is_exact else ROUNDED


def _next_logits(loaded: Loaded, prompts: Sequence[Sequence[int]]) -> torch.Tensor:
    """Logits of the token after each prompt, as generation makes them, [prompts, vocabulary]."""
    ids, mask = left_padded(prompts, loaded.pad_id)
    config = Decoding(max_new_tokens=1).resolve(loaded)
    config.return_dict_in_generate = config.output_logits = True
    with torch.inference_mode(), generation_config(loaded.model, config):
        out = loaded.model.generate(
            input_ids=ids.to(loaded.device),
            attention_mask=mask.to(loaded.device),
            generation_config=config,
        )
    logits: torch.Tensor = out.logits[0].float().cpu()
    return logits
