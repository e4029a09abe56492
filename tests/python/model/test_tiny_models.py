"""The factory of tiny models: each one runs, is sharp, and stays what its seed made it."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from tiny_models import (
    ARCHITECTURES,
    BOS,
    EOS,
    FULL,
    LINEAR,
    MULTIMODAL,
    PAD,
    SLIDING,
    UNSUPPORTED,
    VOCABULARY,
    WINDOW,
    save_tiny,
    tiny_config,
    tiny_model,
    tiny_t5,
    tiny_tokenizer,
    tiny_tokens,
)

LENGTH = 30
SLIDES = [
    "qwen2",
    "mistral",
    "gemma2",
    "gemma3",
    "phi3",
    "gpt_oss",
    "cohere2",
    "exaone4",
    "starcoder2",
]


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    # Handing a tiny matrix to a second thread takes longer than multiplying it.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@torch.no_grad()
def logits(model: PreTrainedModel, implementation: str) -> torch.Tensor:
    model.set_attn_implementation(implementation)
    return model(tiny_tokens(2, LENGTH)).logits


@cache
def attention(architecture: str) -> list[torch.Tensor]:
    """Of the layers that have it, [batch, heads, queries, keys] each."""
    model = tiny_model(architecture)
    model.set_attn_implementation("eager")
    with torch.no_grad():
        layers = model(tiny_tokens(2, LENGTH), output_attentions=True).attentions
    return [layer for layer in layers if layer is not None]


def test_architectures_are_those_of_the_design() -> None:
    assert len(ARCHITECTURES) == 23
    assert UNSUPPORTED == ("bloom", "falcon", "mpt")


@pytest.mark.parametrize("architecture", [*ARCHITECTURES, MULTIMODAL])
def test_runs_the_same_in_eager_and_sdpa(architecture: str) -> None:
    model = tiny_model(architecture)
    plain = logits(model, "eager")
    assert not model.training
    assert plain.shape == (2, LENGTH, VOCABULARY)
    assert plain.dtype == torch.float32
    assert plain.isfinite().all()
    assert model._supports_sdpa == (architecture not in ("gemma2", "gpt_oss"))
    if model._supports_sdpa:
        torch.testing.assert_close(logits(model, "sdpa"), plain, rtol=0, atol=1e-4)


@pytest.mark.parametrize("architecture", [*ARCHITECTURES, MULTIMODAL])
def test_attention_is_sharp(architecture: str) -> None:
    assert attention(architecture)
    for layer in attention(architecture):
        assert layer.shape[2:] == (LENGTH, LENGTH)
        # Of 15 to 30 keys, 4 hold most of the weight.
        assert layer[:, :, LENGTH // 2 :].topk(4).values.sum(-1).mean() > 0.55


@pytest.mark.parametrize("architecture", UNSUPPORTED)
def test_the_unsupported_run_too(architecture: str) -> None:
    with torch.no_grad():
        assert tiny_model(architecture)(tiny_tokens()).logits.isfinite().all()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_windows_are_shorter_than_the_text(architecture: str) -> None:
    query, key = torch.arange(LENGTH)[:, None], torch.arange(LENGTH)
    outside = (key <= query - WINDOW)[None, None]
    slides = [not bool((layer * outside).any()) for layer in attention(architecture)]
    assert any(slides) == (architecture in SLIDES)
    kinds = getattr(tiny_config(architecture), "layer_types", None)
    if kinds is not None and set(kinds) - {FULL}:
        assert slides == [kind == SLIDING for kind in kinds if kind != LINEAR]


def test_sinks_take_their_share() -> None:
    assert all((layer.sum(-1) < 0.99).any() for layer in attention("gpt_oss"))


def test_hybrid_layers_have_no_attention() -> None:
    assert len(attention("qwen3_next")) == 2


def test_the_seed_decides_and_the_random_state_stays() -> None:
    before = torch.get_rng_state()
    first, same, other = (tiny_model("qwen3", seed).state_dict() for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(first[name], same[name]) for name in first)
    assert not any(torch.equal(first[name], other[name]) for name in first)


def test_tokenizer_round_trips_and_fits() -> None:
    tokenizer = tiny_tokenizer()
    assert len(tokenizer) == VOCABULARY
    assert (tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id) == (0, 1, 2)
    assert (PAD, BOS, EOS) == (0, 1, 2)
    text = 'Q: who  said "the rest", then?\n\tA: I\'m Ada .'
    ids = tokenizer(text)["input_ids"]
    assert ids[0] == BOS
    assert len(ids) < len(text)
    assert tokenizer.decode(ids, skip_special_tokens=True) == text
    assert tokenizer(text, add_special_tokens=False)["input_ids"] == ids[1:]
    assert tokenizer.chat_template is None


def test_the_same_text_has_several_spellings() -> None:
    tokenizer = tiny_tokenizer()
    letters = tokenizer.convert_tokens_to_ids(["t", "h"])
    text = tokenizer.decode(letters)
    assert tokenizer(text, add_special_tokens=False)["input_ids"] != letters


def test_chat_template_begins_the_sequence_itself() -> None:
    tokenizer = tiny_tokenizer(chat=True)
    messages = [{"role": "user", "content": "who?"}]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert text == "<bos>[user] who?\n[assistant] (think) "
    text = tokenizer.apply_chat_template(
        messages, tokenize=False, add_generation_prompt=True, enable_thinking=False
    )
    assert text == "<bos>[user] who?\n[assistant] "
    assert tokenizer(text)["input_ids"][:2] == [BOS, BOS]
    assert tokenizer(text, add_special_tokens=False)["input_ids"].count(BOS) == 1


@pytest.mark.parametrize("architecture", ["qwen3", "gpt2", "gemma3", MULTIMODAL])
def test_saved_models_load_again(architecture: str, tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "model", architecture, chat=True)
    model = AutoModelForCausalLM.from_pretrained(folder)
    tokens = tiny_tokens()
    with torch.no_grad():
        torch.testing.assert_close(model(tokens).logits, tiny_model(architecture)(tokens).logits)
    generation = model.generation_config
    assert (generation.eos_token_id, generation.pad_token_id) == (EOS, PAD)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.get_vocab() == tiny_tokenizer().get_vocab()
    assert tokenizer("the end")["input_ids"] == tiny_tokenizer()("the end")["input_ids"]
    assert tokenizer.chat_template == tiny_tokenizer(chat=True).chat_template


def test_t5_is_an_encoder_decoder(tmp_path: Path) -> None:
    assert AutoConfig.from_pretrained(tiny_t5(tmp_path / "t5")).is_encoder_decoder
