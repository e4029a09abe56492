"""Generation of answers in padded batches, with every decoding setting explicit."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, fields
from typing import Any

import torch

from hallutrace.config import ExtractConfig
from hallutrace.errors import ModelError
from hallutrace.model.answer_ends import Answer, AnswerEnds
from hallutrace.model.generation_watch import watched
from hallutrace.model.loading import Loaded
from hallutrace.model.locks import exclusive
from hallutrace.model.seeding import seeded
from hallutrace.option_names import parameter
from hallutrace.transformers_compat import cache_argument


@dataclass(frozen=True, slots=True)
class Decoding:
    """Decoding settings, with the names and meanings of the fields of :class:`ExtractConfig`."""

    max_new_tokens: int
    num_beams: int = 1
    temperature: float = 0.0
    samples: int = 1
    stop: tuple[str, ...] = ()
    top_p: float | None = None
    top_k_sampling: int | None = None
    min_p: float | None = None

    @classmethod
    def of(cls, config: ExtractConfig) -> Decoding:
        """The decoding settings of an extraction configuration."""
        return cls(**{field.name: getattr(config, field.name) for field in fields(cls)})

    def identity(self) -> dict[str, Any]:
        """The resolved settings as JSON, part of a run's identity."""
        settings = {"max_new_tokens": self.max_new_tokens, "samples": self.samples}
        return settings | {"stop": list(self.stop), **self._fields()}

    def resolve(self, loaded: Loaded) -> Any:
        """A transformers generation configuration with every field set that affects the tokens.

        The checkpoint's own generation configuration, which may sample or penalise, is not used.
        """
        from transformers import GenerationConfig

        return GenerationConfig(
            **self._fields(),
            max_new_tokens=self.max_new_tokens,
            num_return_sequences=self.samples,
            eos_token_id=list(loaded.eos_ids) or None,
            pad_token_id=loaded.pad_id,
            bos_token_id=loaded.tokenizer.bos_token_id,
            return_dict_in_generate=False,
        )

    def _fields(self) -> dict[str, Any]:
        is_sampling = self.temperature > 0
        # top_k 0, top_p 1 and similar values turn a rule off; the defaults of transformers would
        # apply some. Without sampling top_k is not read, and its default 50 avoids a warning.
        return {
            "do_sample": is_sampling,
            "temperature": self.temperature if is_sampling else 1.0,
            "top_k": self.top_k_sampling or 0 if is_sampling else 50,
            "top_p": 1.0 if self.top_p is None else self.top_p,
            "min_p": self.min_p,
            "typical_p": 1.0,
            "epsilon_cutoff": 0.0,
            "eta_cutoff": 0.0,
            "num_beams": self.num_beams,
            "early_stopping": False,
            "length_penalty": 1.0,
            "repetition_penalty": 1.0,
            "no_repeat_ngram_size": 0,
            "min_length": 0,
            "min_new_tokens": None,
            "renormalize_logits": False,
            "use_cache": True,
        }


def batch_seed(seed: int, shard: int, batch: int, first: int = 0) -> int:
    """The seed of one batch, so that its samples do not depend on earlier batches.

    Args:
        seed: seed of the run.
        shard: index of the shard.
        batch: index of the batch in the shard.
        first: index in the batch of the first question to answer. It differs between the parts of
            a batch that was split for lack of memory, so that they draw different numbers.

    Returns:
        An integer in [0, 2**56).

    Examples:
        >>> batch_seed(0, 0, 1) == batch_seed(0, 0, 1) != batch_seed(0, 0, 2)
        True
    """
    text = f"{seed}/{shard}/{batch}" + (f"/{first}" if first else "")
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=7).digest(), "little")


def generate(
    loaded: Loaded, prompts: Sequence[Sequence[int]], decoding: Decoding, seed: int
) -> list[list[Answer]]:
    """Answers a batch of prompts.

    Args:
        loaded: the model.
        prompts: token ids of each prompt, without padding.
        decoding: decoding settings.
        seed: seed for sampling; torch's global random state is restored afterwards.

    Returns:
        For each prompt a list of ``decoding.samples`` answers.

    Raises:
        ModelError: an answer is shorter than ``max_new_tokens`` without an end, or the logits are
            not finite.
    """
    from hallutrace.model import kv_cache  # imported late because it imports transformers
    from hallutrace.model.cpu_linear import faster_decoding
    from hallutrace.model.malloc import freed_memory_kept

    ids, mask = left_padded(prompts, loaded.pad_id)
    config = decoding.resolve(loaded)
    ends = AnswerEnds(loaded, decoding.stop)
    ids, mask = ids.to(loaded.device), mask.to(loaded.device)
    copies = max(decoding.num_beams, decoding.samples)
    with (
        torch.inference_mode(),
        exclusive(loaded.model),
        generation_config(loaded.model, config),
        seeded(seed, loaded.device) if config.do_sample else nullcontext(),
        faster_decoding(loaded.model),
        freed_memory_kept(),
        watched(loaded.model, len(prompts) * copies),
        _explain_nonfinite_logits(),
    ):
        out = loaded.model.generate(
            input_ids=ids,
            attention_mask=mask,
            generation_config=config,
            stopping_criteria=_stopping_criteria(ends, ids.shape[1]) if decoding.stop else None,
            **cache_argument(kv_cache.prepare(loaded, ids, mask, copies, decoding.max_new_tokens)),
        )
    answers = [ends.cut(tokens) for tokens in out[:, ids.shape[1] :].tolist()]
    _check_lengths(answers, decoding.max_new_tokens)
    samples = decoding.samples
    return [answers[first : first + samples] for first in range(0, len(answers), samples)]


@contextmanager
def generation_config(model: Any, config: Any) -> Iterator[None]:
    """A context in which ``config`` replaces the model's generation configuration.

    ``generate`` fills unset fields of its argument from the model's configuration.
    """
    before = model.generation_config
    model.generation_config = config
    try:
        yield
    finally:
        model.generation_config = before


def _stopping_criteria(ends: AnswerEnds, prompt_length: int) -> Any:
    """A criterion that stops each sequence or beam at the end of its answer.

    The stop-string criterion of transformers searches the prompt too, and the text of each token
    rather than the decoded answer.
    """
    from transformers import StoppingCriteria, StoppingCriteriaList

    class AtStop(StoppingCriteria):  # type: ignore[misc]
        def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
            rows = input_ids[:, prompt_length:].tolist()
            return torch.tensor([ends.stops(row) for row in rows], device=input_ids.device)

    return StoppingCriteriaList([AtStop()])


def _check_lengths(answers: Sequence[Answer], max_new_tokens: int) -> None:
    """Raises :class:`ModelError` for a short answer without an end: it may contain padding."""
    for answer in answers:
        if answer.finish_reason == "length" and len(answer.tokens) != max_new_tokens:
            raise ModelError(
                f"Expected an answer of {max_new_tokens} tokens or one that ends, got "
                f"{len(answer.tokens)} tokens without an end - leave out {parameter('stop')}"
            )


@contextmanager
def _explain_nonfinite_logits() -> Iterator[None]:
    """A context in which torch's error for sampling from NaN or infinity names the likely cause."""
    try:
        yield
    except RuntimeError as error:
        if "probability tensor contains" not in str(error):
            raise
        raise ModelError(
            "Expected logits that are finite numbers, got NaN or infinity while sampling - use "
            f"another {parameter('dtype')} (float16 overflows where bfloat16 and float32 do not), "
            f"or a higher {parameter('temperature')}"
        ) from error


def left_padded(prompts: Sequence[Sequence[int]], pad_id: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Pads prompts on the left.

    Returns:
        Token ids and attention mask (1 for prompt, 0 for padding), both int64 [prompts, tokens].

    Examples:
        >>> left_padded([[5], [6, 7]], pad_id=0)[0].tolist()
        [[0, 5], [6, 7]]
    """
    length = max(len(prompt) for prompt in prompts)
    ids = torch.full((len(prompts), length), pad_id)
    mask = torch.zeros((len(prompts), length), dtype=torch.long)
    for row, prompt in enumerate(prompts):
        ids[row, length - len(prompt) :] = torch.tensor(list(prompt))
        mask[row, length - len(prompt) :] = 1
    return ids, mask
