"""Generation: padded batches, the fastest attention the model has, every decoding field set."""

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
from hallutrace.model.loading import Loaded
from hallutrace.model.locks import exclusive
from hallutrace.model.seeding import seeded
from hallutrace.transformers_compat import cache_argument


@dataclass(frozen=True, slots=True)
class Decoding:
    """How answers are decoded; fields are named as those of :class:`ExtractConfig`."""

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
        """The decoding that a configuration asks for."""
        return cls(**{field.name: getattr(config, field.name) for field in fields(cls)})

    def identity(self) -> dict[str, Any]:
        """The resolved fields of generation, as JSON."""
        own = {"max_new_tokens": self.max_new_tokens, "samples": self.samples}
        return own | {"stop": list(self.stop), **self._fields()}

    def resolve(self, loaded: Loaded) -> Any:
        """A generation configuration with every field that decides tokens set.

        A checkpoint's own configuration may sample, cut or penalise; nothing of it is left.
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
        samples = self.temperature > 0
        # top_k 0, top_p 1 and the like mean "not applied"; transformers' own defaults would apply
        # some. Without sampling top_k is not read; 50 is its default, which says nothing.
        return {
            "do_sample": samples,
            "temperature": self.temperature if samples else 1.0,
            "top_k": self.top_k_sampling or 0 if samples else 50,
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
    """The seed of one batch, so that sampling does not depend on what was done before it.

    Args:
        seed: of the run.
        shard: its number.
        batch: its number in the shard.
        first: place in the batch of the first question that is answered; parts of a batch that had
            to be halved must not draw the same numbers.
    """
    text = f"{seed}/{shard}/{batch}" + (f"/{first}" if first else "")
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=7).digest(), "little")


def generate(
    loaded: Loaded, prompts: Sequence[Sequence[int]], decoding: Decoding, seed: int
) -> list[list[Answer]]:
    """Answers a batch of prompts.

    Args:
        loaded: the model.
        prompts: token ids; padded on the left here.
        decoding: how to decode.
        seed: for sampling; the caller's random numbers are left as they are.

    Returns:
        For each prompt ``decoding.samples`` answers.

    Raises:
        ModelError: an answer that neither ended nor has all its tokens.
    """
    from hallutrace.model import kv_cache  # loads transformers
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
        _told_of_logits(),
    ):
        out = loaded.model.generate(
            input_ids=ids,
            attention_mask=mask,
            generation_config=config,
            stopping_criteria=_at_stop(ends, ids.shape[1]) if decoding.stop else None,
            **cache_argument(kv_cache.prepare(loaded, ids, mask, copies, decoding.max_new_tokens)),
        )
    answers = [ends.cut(tokens) for tokens in out[:, ids.shape[1] :].tolist()]
    _check_lengths(answers, decoding.max_new_tokens)
    return [answers[at : at + decoding.samples] for at in range(0, len(answers), decoding.samples)]


@contextmanager
def generation_config(model: Any, config: Any) -> Iterator[None]:
    """Within it, a model's own generation configuration, from which unset fields are filled."""
    before = model.generation_config
    model.generation_config = config
    try:
        yield
    finally:
        model.generation_config = before


def _at_stop(ends: AnswerEnds, prompt_width: int) -> Any:
    """Ends a sequence, or a beam, where :class:`AnswerEnds` says that its answer ends.

    transformers' own criterion looks into the prompt as well, and knows tokens by their text alone.
    """
    from transformers import StoppingCriteria, StoppingCriteriaList

    class AtStop(StoppingCriteria):  # type: ignore[misc]
        def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
            rows = input_ids[:, prompt_width:].tolist()
            return torch.tensor([ends.stops(row) for row in rows], device=input_ids.device)

    return StoppingCriteriaList([AtStop()])


def _check_lengths(answers: Sequence[Answer], longest: int) -> None:
    """Refuses an answer that is shorter than asked without an end: it may hold what fills it up."""
    for answer in answers:
        if answer.finish_reason == "length" and len(answer.tokens) != longest:
            raise ModelError(
                f"Expected an answer of {longest} tokens or one that ends, got "
                f"{len(answer.tokens)} tokens without an end - leave out --stop"
            )


@contextmanager
def _told_of_logits() -> Iterator[None]:
    """Within it, the error of sampling from logits that are no numbers says what they come from."""
    try:
        yield
    except RuntimeError as error:
        if "probability tensor contains" not in str(error):
            raise
        raise ModelError(
            "Expected logits that are finite numbers, got NaN or infinity while sampling - "
            "use another --dtype (float16 overflows where bfloat16 and float32 do not), or a "
            "higher --temperature"
        ) from error


def left_padded(prompts: Sequence[Sequence[int]], pad_id: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Prompts in one tensor, filled up on the left, and the mask of what is prompt."""
    longest = max(len(prompt) for prompt in prompts)
    ids = torch.full((len(prompts), longest), pad_id)
    mask = torch.zeros((len(prompts), longest), dtype=torch.long)
    for row, prompt in enumerate(prompts):
        ids[row, longest - len(prompt) :] = torch.tensor(list(prompt))
        mask[row, longest - len(prompt) :] = 1
    return ids, mask
