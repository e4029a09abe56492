"""Generation: what is decoded is what was asked, whatever the checkpoint says."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import load_tiny
from hallutrace.config import ExtractConfig
from hallutrace.model.answer_ends import Answer, AnswerEnds, decode
from hallutrace.model.generate import Decoding, batch_seed, generate
from hallutrace.model.loading import Loaded, describe, load
from tiny_models import EOS, PAD, save_tiny, tiny_model, tiny_tokenizer, tiny_tokens

PROMPTS = [tiny_tokens(1, length, seed=length)[0].tolist() for length in (13, 4, 9)]

# What real checkpoints carry in generation_config.json, and worse.
HOSTILE: dict[str, Any] = {
    "do_sample": True,
    "temperature": 1.7,
    "top_k": 5,
    "top_p": 0.4,
    "min_p": 0.1,
    "typical_p": 0.9,
    "epsilon_cutoff": 0.01,
    "eta_cutoff": 0.01,
    "num_beams": 4,
    "num_return_sequences": 3,
    "length_penalty": -3.0,
    "early_stopping": True,
    "repetition_penalty": 5.0,
    "no_repeat_ngram_size": 1,
    "encoder_repetition_penalty": 2.0,
    "min_length": 40,
    "min_new_tokens": 20,
    "max_new_tokens": 3,
    "suppress_tokens": list(range(4, 60)),
    "begin_suppress_tokens": list(range(4, 90)),
    "bad_words_ids": [[token] for token in range(60, 100)],
    "forced_bos_token_id": 110,
    "forced_eos_token_id": 2,
    "guidance_scale": 3.0,
    "renormalize_logits": True,
    "use_cache": False,
    "eos_token_id": [EOS, 40, 41],
    "bos_token_id": 1,
    "pad_token_id": PAD,
}


def cut(loaded: Loaded, tokens: list[int], stop: Sequence[str]) -> Answer:
    return AnswerEnds(loaded, stop).cut(tokens)


def with_eos(loaded: Loaded, *eos_ids: int) -> Loaded:
    return replace(loaded, eos_ids=tuple(sorted(eos_ids)))


def next_logprobs(loaded: Loaded, tokens: list[int]) -> torch.Tensor:
    with torch.inference_mode():
        logits = loaded.model(input_ids=torch.tensor([tokens]), use_cache=False).logits
    return torch.log_softmax(logits[0, -1].float(), -1)


def greedy(loaded: Loaded, prompt: list[int], count: int) -> list[int]:
    """Always the likeliest token, up to the end of the sequence: the definition."""
    tokens: list[int] = []
    while len(tokens) < count and not (tokens and tokens[-1] in loaded.eos_ids):
        tokens.append(int(next_logprobs(loaded, prompt + tokens).argmax()))
    return tokens


def beam_search(loaded: Loaded, prompt: list[int], count: int, beams: int) -> list[int]:
    """The best of the beams where none ends early: the definition."""
    alive = [(0.0, [])]
    for _ in range(count):
        grown = [
            (score + float(logprob), [*tokens, token])
            for score, tokens in alive
            for token, logprob in enumerate(next_logprobs(loaded, prompt + tokens))
        ]
        alive = sorted(grown, key=lambda scored: -scored[0])[:beams]
    return alive[0][1]


@cache
def hostile(folder: Path) -> Loaded:
    save_tiny(folder)
    (folder / "generation_config.json").write_text(json.dumps(HOSTILE))
    return load(ExtractConfig(model=str(folder)))


@pytest.fixture
def hostile_loaded(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    return hostile(tmp_path_factory.getbasetemp() / "hostile")


@pytest.mark.parametrize("seed", [0, 1])
def test_greedy_is_the_likeliest_token_each_time(hostile_loaded: Loaded, seed: int) -> None:
    answers = generate(hostile_loaded, PROMPTS, Decoding(max_new_tokens=12), seed)
    for prompt, (answer,) in zip(PROMPTS, answers, strict=True):
        assert answer.tokens == greedy(hostile_loaded, prompt, 12)
        assert answer.finish_reason == ("eos" if answer.tokens[-1] in (EOS, 40, 41) else "length")


@pytest.mark.parametrize("beams", [3, 5])
def test_beams_are_beam_search_and_never_sample(hostile_loaded: Loaded, beams: int) -> None:
    endless = with_eos(hostile_loaded)
    answers = generate(endless, PROMPTS, Decoding(max_new_tokens=6, num_beams=beams), seed=0)
    for prompt, (answer,) in zip(PROMPTS, answers, strict=True):
        assert answer.tokens == beam_search(endless, prompt, 6, beams)
        assert answer.finish_reason == "length"


@pytest.mark.parametrize(
    "decoding",
    [
        Decoding(max_new_tokens=9),
        Decoding(max_new_tokens=9, num_beams=4),
        Decoding(max_new_tokens=9, num_beams=4, samples=3),
        Decoding(max_new_tokens=9, temperature=0.8, samples=2),
    ],
    ids=["greedy", "beams", "several beams", "samples"],
)
def test_a_checkpoints_own_settings_change_nothing(
    hostile_loaded: Loaded, checkpoint: Path, decoding: Decoding
) -> None:
    clean = load(ExtractConfig(model=str(checkpoint)))
    assert hostile_loaded.eos_ids == (EOS, 40, 41)
    assert clean.eos_ids == (EOS,)
    same_end = replace(clean, eos_ids=hostile_loaded.eos_ids)
    assert generate(hostile_loaded, PROMPTS, decoding, 3) == generate(
        same_end, PROMPTS, decoding, 3
    )


def test_the_resolved_decoding_is_all_of_it() -> None:
    greedy_fields = {
        "max_new_tokens": 64,
        "num_beams": 5,
        "temperature": 1.0,
        "samples": 1,
        "stop": ["\n"],
        "do_sample": False,
        "top_k": 50,
        "top_p": 1.0,
        "min_p": None,
        "typical_p": 1.0,
        "epsilon_cutoff": 0.0,
        "eta_cutoff": 0.0,
        "early_stopping": False,
        "length_penalty": 1.0,
        "repetition_penalty": 1.0,
        "no_repeat_ngram_size": 0,
        "min_length": 0,
        "min_new_tokens": None,
        "renormalize_logits": False,
        "use_cache": True,
    }
    assert Decoding(64, num_beams=5, stop=("\n",)).identity() == greedy_fields
    sampled = Decoding(64, temperature=0.7, samples=4).identity()
    assert (sampled["do_sample"], sampled["temperature"], sampled["top_k"]) == (True, 0.7, 0)


def test_decoding_comes_from_the_configuration() -> None:
    config = ExtractConfig(max_new_tokens=7, temperature=0.5, samples=3, stop=("\n", "Q:"))
    assert Decoding.of(config) == Decoding(7, 1, 0.5, 3, ("\n", "Q:"))


# Ends -------------------------------------------------------------------------------------------


def test_any_of_several_ends_ends_an_answer() -> None:
    loaded = load_tiny()
    # The third token of each greedy answer ends it, and so does what comes before it by chance.
    ends = {greedy(with_eos(loaded), prompt, 3)[2] for prompt in PROMPTS[:2]}
    ended = with_eos(loaded, *ends)
    answers = generate(ended, PROMPTS, Decoding(max_new_tokens=10), 0)
    for prompt, (answer,) in zip(PROMPTS, answers, strict=True):
        assert answer.tokens == greedy(ended, prompt, 10)
        assert not ends & set(answer.tokens[:-1])
    assert [answer.finish_reason for (answer,) in answers[:2]] == ["eos", "eos"]


@pytest.mark.parametrize("beams", [1, 4])
def test_an_answer_can_be_the_end_alone(beams: int) -> None:
    logprobs = next_logprobs(load_tiny(), PROMPTS[0])
    first = int(logprobs.argmax())
    # A beam that ends at once wins where nearly all tokens end.
    ends = [first] if beams == 1 else logprobs.topk(120).indices.tolist()
    loaded = with_eos(load_tiny(), *ends)
    ((answer,),) = generate(loaded, PROMPTS[:1], Decoding(max_new_tokens=5, num_beams=beams), 0)
    assert answer == Answer([first], decode(loaded, [first]).strip(), "eos")


@pytest.mark.parametrize("beams", [1, 3])
def test_a_missing_pad_token_changes_no_answer(beams: int) -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.pad_token = None
    model = tiny_model("qwen3")
    model.generation_config.pad_token_id = model.config.pad_token_id = None
    model.generation_config.eos_token_id = [40, EOS]
    bare = describe(model, tokenizer, "qwen3", "random")
    assert (bare.pad_id, bare.eos_ids) == (EOS, (EOS, 40))
    decoding = Decoding(max_new_tokens=10, num_beams=beams)
    padded = with_eos(load_tiny(), EOS, 40)
    assert generate(bare, PROMPTS, decoding, 0) == generate(padded, PROMPTS, decoding, 0)


def test_a_model_without_any_end_or_pad_token_goes_on_to_the_limit() -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.pad_token = tokenizer.eos_token = None
    model = tiny_model("qwen3")
    for config in (model.config, model.generation_config):
        config.pad_token_id = config.eos_token_id = None
    bare = describe(model, tokenizer, "qwen3", "random")
    assert (bare.pad_id, bare.eos_ids) == (0, ())
    answers = generate(bare, PROMPTS, Decoding(max_new_tokens=5), 0)
    assert [(len(answer.tokens), answer.finish_reason) for (answer,) in answers] == [
        (5, "length")
    ] * 3


# Sampling ---------------------------------------------------------------------------------------


def test_samples_are_seeded_and_differ() -> None:
    loaded = load_tiny()
    decoding = Decoding(max_new_tokens=8, temperature=1.0, samples=4)
    answers = generate(loaded, PROMPTS, decoding, 5)
    torch.manual_seed(123)
    assert generate(loaded, PROMPTS, decoding, 5) == answers
    assert generate(loaded, PROMPTS, decoding, 6) != answers
    for several in answers:
        assert len({tuple(answer.tokens) for answer in several}) == 4


def test_samples_are_drawn_from_the_whole_distribution() -> None:
    loaded = load_tiny("qwen3", "calm")
    decoding = Decoding(max_new_tokens=1, temperature=2.0, samples=3000)
    ((*answers,),) = generate(loaded, PROMPTS[:1], decoding, 0)
    counts = torch.bincount(torch.tensor([answer.tokens[0] for answer in answers]), minlength=128)
    expected = torch.softmax(next_logprobs(loaded, PROMPTS[0]) / 2.0, -1) * 3000
    # Chi-squared of 127 degrees of freedom: 16 standard deviations at 382.
    assert float(((counts - expected) ** 2 / expected).sum()) < 382
    assert (counts > 0).sum() > 100


@pytest.mark.parametrize(
    "cut",
    [{"top_p": 0.3}, {"top_k_sampling": 5}, {"min_p": 0.7}, {"top_p": 0.5, "top_k_sampling": 9}],
)
def test_sampling_is_cut_as_asked(cut: dict[str, Any]) -> None:
    loaded = load_tiny("qwen3", "calm")
    decoding = Decoding(max_new_tokens=1, temperature=0.5, samples=1000, **cut)
    ((*answers,),) = generate(loaded, PROMPTS[:1], decoding, 0)
    share = torch.softmax(next_logprobs(loaded, PROMPTS[0]) / 0.5, -1)
    descending, order = share.sort(descending=True)
    kept = torch.ones(len(share), dtype=torch.bool)
    if "top_k_sampling" in cut:
        kept &= torch.arange(len(share)) < cut["top_k_sampling"]
    if "top_p" in cut:
        descending = descending * kept / (descending * kept).sum()
        kept &= descending.cumsum(0) - descending < cut["top_p"]
    if "min_p" in cut:
        kept &= descending >= cut["min_p"] * descending[0]
    assert 1 < kept.sum() < 60
    drawn = {answer.tokens[0] for answer in answers}
    assert drawn == set(order[kept].tolist())
    identity = decoding.identity()
    resolved = {"top_p": 1.0, "min_p": None} | cut
    assert identity["top_k"] == resolved.pop("top_k_sampling", 0)
    assert {name: identity[name] for name in resolved} == resolved


def test_several_beams_of_one_question_differ() -> None:
    decoding = Decoding(max_new_tokens=8, num_beams=4, samples=4)
    for several in generate(load_tiny(), PROMPTS, decoding, 0):
        assert len({tuple(answer.tokens) for answer in several}) == 4


def test_seeds_of_batches_differ_and_stay() -> None:
    seeds = {
        batch_seed(seed, shard, batch)
        for seed in range(3)
        for shard in range(9)
        for batch in range(9)
    }
    assert len(seeds) == 3 * 9 * 9
    assert batch_seed(41, 2, 7) == 8856677287570386


# Cutting ----------------------------------------------------------------------------------------

ordinary = st.integers(3, 127)


@given(st.lists(st.integers(0, 127), min_size=1, max_size=20))
def test_an_answer_ends_with_the_first_end(tokens: list[int]) -> None:
    answer = cut(load_tiny(), tokens, ())
    expected = tokens[: tokens.index(EOS) + 1] if EOS in tokens else tokens
    assert answer.tokens == expected
    assert answer.finish_reason == ("eos" if EOS in tokens else "length")
    assert answer.text == decode(load_tiny(), expected).strip()


@settings(max_examples=300)
@given(
    st.lists(ordinary, min_size=1, max_size=30),
    st.lists(st.text("the\n Qan:", min_size=1, max_size=3), min_size=1, max_size=3),
)
def test_a_stop_string_is_cut_in_tokens(tokens: list[int], stop: list[str]) -> None:
    loaded = load_tiny()
    answer = cut(loaded, tokens, stop)
    texts = [decode(loaded, tokens[:count]) for count in range(1, len(tokens) + 1)]
    text = next((text for text in texts if any(word in text for word in stop)), None)
    if text is None:
        assert answer == Answer(tokens, texts[-1].strip(), "length")
        return
    places = [text.find(word) for word in stop if word in text]
    kept = text[: min(places)]
    assert answer.finish_reason == "stop"
    assert answer.text == kept.strip()
    assert answer.tokens == tokens[: len(answer.tokens)]
    assert decode(loaded, answer.tokens).startswith(kept)
    if len(answer.tokens) > 1:
        assert not decode(loaded, answer.tokens[:-1]).startswith(kept)


def spelled(text: str) -> list[int]:
    return load_tiny().tokenizer(text, add_special_tokens=False)["input_ids"]


@pytest.mark.parametrize(
    ("said", "stop", "kept", "text"),
    [
        ("x y\nQ: z", ["\n"], "x y", "x y"),
        ("x y\nQ: z", ["Q:", "y"], "x ", "x"),
        ("abc", ["d"], "abc", "abc"),
        ("\nx", ["\n"], "\n", ""),  # one token stays, for an answer has one at least
        ("xthy", ["h"], "xth", "xt"),  # `th` is one token: it also holds answer
        ("the", ["the"], "th", ""),
        ("x  stop", [" stop"], "x ", "x"),
    ],
)
def test_stop_strings_by_example(said: str, stop: list[str], kept: str, text: str) -> None:
    reason = "length" if stop == ["d"] else "stop"
    assert cut(load_tiny(), spelled(said), stop) == Answer(spelled(kept), text, reason)


def test_a_stop_string_after_the_end_is_not_seen() -> None:
    tokens = [*spelled("xy"), EOS, *spelled("stop")]
    assert cut(load_tiny(), tokens, ["stop"]) == Answer([*spelled("xy"), EOS], "xy", "eos")


def test_a_stop_string_drops_the_end_that_follows_it() -> None:
    tokens = [*spelled("xy\n"), EOS]
    assert cut(load_tiny(), tokens, ["\n"]) == Answer(spelled("xy"), "xy", "stop")


def test_generation_stops_at_a_stop_string() -> None:
    loaded = with_eos(load_tiny())
    plain = Decoding(max_new_tokens=12)
    whole = [answer for (answer,) in generate(loaded, PROMPTS, plain, 0)]
    stop = decode(loaded, whole[1].tokens)[5:7]
    stopped = generate(loaded, PROMPTS, replace(plain, stop=(stop,)), 0)
    assert [answer for (answer,) in stopped] == [
        cut(loaded, answer.tokens, [stop]) for answer in whole
    ]
    assert stopped[1][0].finish_reason == "stop"
