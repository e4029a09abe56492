"""Generation: padded batches, the fastest attention the model has, every decoding field set."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import torch

from hallutrace.config import ExtractConfig
from hallutrace.errors import InputError
from hallutrace.models import Loaded
from hallutrace.transformers_compat import cache_argument


@dataclass(frozen=True, slots=True)
class Answer:
    """One generated answer.

    Attributes:
        tokens: ids, the end-of-sequence token included if it came; at least one.
        text: the answer as text, without special tokens and without a stop string.
        finish_reason: ``eos``, ``stop`` (a stop string) or ``length``.
    """

    tokens: list[int]
    text: str
    finish_reason: str


@dataclass(frozen=True, slots=True)
class Decoding:
    """How answers are decoded."""

    max_new_tokens: int
    num_beams: int = 1
    temperature: float = 0.0
    samples: int = 1
    stop: tuple[str, ...] = ()

    @classmethod
    def of(cls, config: ExtractConfig) -> Decoding:
        """The decoding that a configuration asks for."""
        return cls(
            max_new_tokens=config.max_new_tokens,
            num_beams=config.num_beams,
            temperature=config.temperature,
            samples=config.samples,
            stop=config.stop,
        )

    def identity(self) -> dict[str, Any]:
        """The resolved fields of generation, as JSON."""
        return {**asdict(self), "stop": list(self.stop), **self._fields()}

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
        # some.
        return {
            "do_sample": samples,
            "temperature": self.temperature if samples else 1.0,
            "top_k": 0 if samples else 50,
            "top_p": 1.0,
            "min_p": None,
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


def batch_seed(seed: int, shard: int, batch: int) -> int:
    """The seed of one batch, so that sampling does not depend on what was done before it."""
    text = f"{seed}/{shard}/{batch}".encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=7).digest(), "little")


def generate(
    loaded: Loaded, prompts: Sequence[Sequence[int]], decoding: Decoding, seed: int
) -> list[list[Answer]]:
    """Answers a batch of prompts.

    Args:
        loaded: the model.
        prompts: token ids; padded on the left here.
        decoding: how to decode.
        seed: for sampling.

    Returns:
        For each prompt ``decoding.samples`` answers.
    """
    from hallutrace import cache  # loads transformers
    from hallutrace.allocator import freed_memory_kept
    from hallutrace.attention import exclusive
    from hallutrace.few_rows import faster_decoding

    ids, mask = _left_padded(prompts, loaded.pad_id)
    config = decoding.resolve(loaded)
    extra: dict[str, Any] = {}
    if decoding.stop and decoding.num_beams == 1:
        # Beams are only cut afterwards: a stop string ends one beam, not the search.
        config.stop_strings = list(decoding.stop)
        extra["tokenizer"] = loaded.tokenizer
    ids, mask = ids.to(loaded.device), mask.to(loaded.device)
    copies = max(decoding.num_beams, decoding.samples)
    with (
        torch.inference_mode(),
        exclusive(loaded.model),
        _generation_config(loaded.model, config),
        _seeded(seed, config.do_sample, loaded.device),
        faster_decoding(loaded.model),
        freed_memory_kept(),
    ):
        out = loaded.model.generate(
            input_ids=ids,
            attention_mask=mask,
            generation_config=config,
            **cache_argument(cache.prepare(loaded, ids, mask, copies, decoding.max_new_tokens)),
            **extra,
        )
    made = out[:, ids.shape[1] :].tolist()
    answers = [cut(loaded, tokens, decoding.stop) for tokens in made]
    return [answers[at : at + decoding.samples] for at in range(0, len(answers), decoding.samples)]


@contextmanager
def _generation_config(model: Any, config: Any) -> Iterator[None]:
    """Within it, a model's own generation configuration, from which unset fields are filled."""
    before = model.generation_config
    model.generation_config = config
    try:
        yield
    finally:
        model.generation_config = before


_SAMPLING = threading.RLock()


@contextmanager
def _seeded(seed: int, samples: bool, device: torch.device) -> Iterator[None]:
    """Within it, torch's random numbers come from a seed; afterwards the caller's go on.

    ``generate`` samples from the generator of the whole process, so one thread samples at a time.
    """
    if not samples:
        yield
        return
    devices = range(torch.cuda.device_count()) if device.type == "cuda" else []
    with _SAMPLING, torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield


def cut(loaded: Loaded, tokens: Sequence[int], stop: Sequence[str]) -> Answer:
    """The answer in generated tokens: up to the first end-of-sequence, or to a stop string.

    A stop string is cut in tokens: those that hold nothing but it and what follows are dropped,
    the one in which it begins stays if it also holds answer. An answer that begins with it keeps
    one token.
    """
    ids = list(tokens)
    reason = "length"
    for at, token in enumerate(ids):
        if token in loaded.eos_ids:
            ids, reason = ids[: at + 1], "eos"
            break
    text = decode(loaded, ids)
    found = [at for at in (text.find(word) for word in stop) if at >= 0]
    if found:
        text = text[: min(found)]
        kept = 1
        while kept < len(ids) and not decode(loaded, ids[:kept]).startswith(text):
            kept += 1
        ids, reason = ids[:kept], "stop"
    return Answer(ids, text.strip(), reason)


def given(loaded: Loaded, response: str | tuple[int, ...], eos: str) -> Answer:
    """An answer that exists already.

    Args:
        loaded: the model that replays it.
        response: text, tokenised as it stands without special tokens; or ids, taken as they are.
        eos: ``on`` ends it with an end-of-sequence token if it has none, ``off`` never does,
            ``auto`` does so for text alone.

    Raises:
        InputError: ids that the model does not have, or no token at all.
    """
    is_text = isinstance(response, str)
    tokens = list(
        loaded.tokenizer(response, add_special_tokens=False)["input_ids"] if is_text else response
    )
    vocabulary = loaded.model.config.get_text_config().vocab_size
    if tokens and max(tokens) >= vocabulary:
        raise InputError(
            f"Expected token ids below {vocabulary}, got {max(tokens)} - "
            "give ids of this model's tokenizer, or text"
        )
    text = str(response) if is_text else decode(loaded, tokens)
    ended = bool(tokens) and tokens[-1] in loaded.eos_ids
    if not ended and loaded.eos_ids and (eos == "on" or (eos == "auto" and is_text)):
        tokens.append(loaded.eos_ids[0])
        ended = True
    if not tokens:
        raise InputError(f"Expected a response of at least one token, got {response!r}")
    return Answer(tokens, text.strip(), "eos" if ended else "given")


def decode(loaded: Loaded, tokens: Sequence[int]) -> str:
    """Text of answer tokens, special ones left out."""
    text: str = loaded.tokenizer.decode(
        list(tokens), skip_special_tokens=True, clean_up_tokenization_spaces=False
    )
    return text


def _left_padded(
    prompts: Sequence[Sequence[int]], pad_id: int
) -> tuple[torch.Tensor, torch.Tensor]:
    longest = max(len(prompt) for prompt in prompts)
    ids = torch.full((len(prompts), longest), pad_id)
    mask = torch.zeros((len(prompts), longest), dtype=torch.long)
    for row, prompt in enumerate(prompts):
        ids[row, longest - len(prompt) :] = torch.tensor(list(prompt))
        mask[row, longest - len(prompt) :] = 1
    return ids, mask
