"""Where answers end: generated, cut and given ones alike, whatever lies beside them in a batch."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given as examples
from hypothesis import settings
from hypothesis import strategies as st

import hallutrace
from conftest import Extract, load_tiny, write_lines
from hallutrace.model.answer_ends import Answer, AnswerEnds, decode, given, response_end
from hallutrace.model.generate import Decoding, generate
from hallutrace.model.loading import Loaded
from hallutrace.model.prompts import PromptBuilder
from tiny_models import (
    ARCHITECTURES,
    EOS,
    PAD,
    save_tiny,
    tiny_model,
    tiny_tokenizer,
    tiny_tokens,
)
from tiny_tokenizers import of_bytes, with_special

PROMPTS = [tiny_tokens(1, length, seed=length)[0].tolist() for length in (13, 4, 9)]
DECODINGS = [Decoding(12), Decoding(12, num_beams=3), Decoding(12, num_beams=3, samples=2)]


def said(loaded: Loaded, text: str) -> list[int]:
    tokens: list[int] = loaded.tokenizer(text, add_special_tokens=False)["input_ids"]
    return tokens


def with_end_mark(loaded: Loaded, token: int) -> Loaded:
    """The model, whose tokenizer spells one of its tokens `<|end|>`, a special token."""
    character = str(loaded.tokenizer.convert_ids_to_tokens(token))
    return replace(loaded, tokenizer=with_special({character: "<|end|>"}), eos_ids=())


# Stop strings and batches -------------------------------------------------------------------------


def test_a_special_token_stops_an_answer_and_its_padding_is_no_answer() -> None:
    endless = replace(load_tiny(), eos_ids=())
    whole = [answer.tokens for (answer,) in generate(endless, PROMPTS, Decoding(12), 0)]
    loaded = replace(with_end_mark(endless, whole[1][4]), eos_ids=(EOS,))
    ends = whole[1].index(whole[1][4])
    (_, (answer,), _) = generate(loaded, PROMPTS, Decoding(12, stop=("<|end|>",)), 0)
    assert (answer.tokens, answer.finish_reason) == (whole[1][:ends], "stop")


@pytest.mark.parametrize("decoding", DECODINGS, ids=["greedy", "beams", "several beams"])
@pytest.mark.parametrize("kind", ["special", "spelled", "two tokens", "end", "end is padding"])
def test_neighbours_in_a_batch_change_no_answer(decoding: Decoding, kind: str) -> None:
    loaded = replace(load_tiny(), eos_ids=())
    whole = generate(loaded, PROMPTS, replace(decoding, stop=()), 0)[1][0].tokens
    token = whole[3]
    if kind == "special":
        loaded, stop = with_end_mark(loaded, token), "<|end|>"
    elif kind.startswith("end"):
        pad = token if kind == "end is padding" else PAD
        loaded, stop = replace(loaded, eos_ids=(token,), pad_id=pad), ""
    else:
        stop = decode(loaded, whole[2:4] if kind == "two tokens" else [token])
    decoding = replace(decoding, stop=(stop,) if stop else ())
    together = generate(loaded, PROMPTS, decoding, 0)
    assert together == [generate(loaded, [prompt], decoding, 0)[0] for prompt in PROMPTS]
    assert any(answer.finish_reason != "length" for several in together for answer in several)
    if kind.startswith("end"):
        for several in together:
            for answer in several:
                assert token not in answer.tokens[:-1]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_no_architecture_sees_the_padding(architecture: str) -> None:
    loaded = load_tiny(architecture)
    for decoding in (Decoding(6), Decoding(6, num_beams=2)):
        together = generate(loaded, PROMPTS, decoding, 0)
        assert together == [generate(loaded, [prompt], decoding, 0)[0] for prompt in PROMPTS]


def test_a_stop_string_is_not_looked_for_in_the_prompt() -> None:
    loaded = replace(load_tiny(), eos_ids=())
    whole = generate(loaded, PROMPTS, Decoding(8), 0)[0][0]
    stop = decode(loaded, PROMPTS[0][-1:]) + decode(loaded, whole.tokens[:1])
    together = generate(loaded, PROMPTS, Decoding(8, stop=(stop,)), 0)
    assert stop not in whole.text
    assert together[0] == [whole]


def best_beam(loaded: Loaded, prompt: list[int], decoding: Decoding) -> Answer:
    """Beam search in which a stop string ends a beam: the definition."""
    ends, beams = AnswerEnds(loaded, decoding.stop), decoding.num_beams
    alive: list[tuple[float, list[int]]] = [(0.0, [])]
    done: list[tuple[float, list[int]]] = []
    for length in range(1, decoding.max_new_tokens + 1):
        grown = []
        for score, tokens in alive:
            with torch.inference_mode():
                ids = torch.tensor([prompt + tokens])
                logits = loaded.model(input_ids=ids, use_cache=False).logits[0, -1]
            logprobs = torch.log_softmax(logits.float(), -1).tolist()
            grown += [(score + each, [*tokens, token]) for token, each in enumerate(logprobs)]
        grown = sorted(grown, key=lambda scored: -scored[0])[: 2 * beams]
        is_last = length == decoding.max_new_tokens
        over = [is_last or ends.stops(tokens) for _, tokens in grown]
        done += [
            (score / length, tokens)
            for (score, tokens), ended in zip(grown[:beams], over[:beams], strict=True)
            if ended
        ]
        done = sorted(done, key=lambda scored: -scored[0])[:beams]
        alive = [one for one, ended in zip(grown, over, strict=True) if not ended][:beams]
        if not alive or (len(done) == beams and alive[0][0] / length <= done[-1][0]):
            break
    return ends.cut(done[0][1])


@pytest.mark.parametrize("place", [1, 3])
def test_a_stop_string_ends_a_beam_as_the_end_of_the_sequence_does(place: int) -> None:
    loaded = replace(load_tiny("qwen3", "calm"), eos_ids=())
    plain = Decoding(7, num_beams=3)
    for prompt, (answer,) in zip(PROMPTS, generate(loaded, PROMPTS, plain, 0), strict=True):
        stop = decode(loaded, [answer.tokens[place]])
        stopping = replace(plain, stop=(stop,))
        (together, *_) = generate(loaded, [prompt, *PROMPTS], stopping, 0)
        assert together == [best_beam(loaded, prompt, stopping)]


# Cutting ------------------------------------------------------------------------------------------


@settings(max_examples=200)
@examples(st.text("aé€𝄞\n", max_size=12), st.lists(st.text("é€𝄞\na", min_size=1, max_size=2)))
def test_characters_of_several_tokens_are_cut_where_they_begin(text: str, stop: list[str]) -> None:
    loaded = replace(load_tiny(), tokenizer=of_bytes(), eos_ids=(0,))
    tokens = [*said(loaded, text), 0]
    answer = AnswerEnds(loaded, stop).cut(tokens)
    whole = text.encode()
    ends = [whole.find(word.encode()) + len(word.encode()) for word in stop if word in text]
    if not ends:
        assert answer == Answer(tokens, text.strip(), "eos")
        return
    before = whole[: min(ends)].decode()
    kept = before[: min(before.find(word) for word in stop if word in before)]
    assert answer.finish_reason == "stop"
    assert answer.text == kept.strip()
    assert answer.tokens == tokens[: max(1, len(kept.encode()))]


@pytest.mark.parametrize(
    ("stop", "text", "kept", "reason"),
    [
        (["<|end|>"], "ab~cd", "ab", "stop"),  # a special token ...
        (["<|end|>"], "ab<|end|>cd", "ab", "stop"),  # ... is spelled the same way
        (["b<|end|>"], "ab~cd", "a", "stop"),
        (["end"], "ab~cd", "ab~cd", "length"),  # nothing is found within one
        (["bc"], "ab~cd", "a", "stop"),  # and it does not part the words beside it
        (["<|end|>", "cd"], "ab~cd", "ab", "stop"),
        (["<|end|>"], "~ab", "~", "stop"),  # an answer keeps a token
    ],
)
def test_special_tokens_in_stop_strings(stop: list[str], text: str, kept: str, reason: str) -> None:
    loaded = replace(load_tiny(), tokenizer=with_special({"~": "<|end|>"}), eos_ids=(EOS,))
    tokens = said(loaded, text.replace("~", "<|end|>"))
    answer = AnswerEnds(loaded, stop).cut(tokens)
    assert answer.finish_reason == reason
    assert answer.tokens == said(loaded, kept.replace("~", "<|end|>"))
    assert answer.text == kept.replace("~", "")


@pytest.mark.parametrize(
    ("stop", "kept"),
    [(["\n", "\n\n"], "a"), (["\n\n", "\n"], "a"), (["bc", "abcd"], "a"), (["c", "bc"], "a")],
)
def test_the_stop_string_that_is_complete_first_cuts(stop: list[str], kept: str) -> None:
    loaded = load_tiny()
    text = "a\n\nb" if stop[0].isspace() else "abcd"
    assert AnswerEnds(loaded, stop).cut(said(loaded, text)).text == kept


# Responses ----------------------------------------------------------------------------------------


def response(loaded: Loaded, text: Any, eos: str = "auto", stop: tuple[str, ...] = ()) -> Answer:
    return given(AnswerEnds(loaded, stop), loaded, text, eos, response_end(loaded, None))


def test_nothing_after_its_end_is_kept_of_a_response() -> None:
    loaded = load_tiny()
    words = said(loaded, "ox")
    assert response(loaded, (*words, EOS, PAD, PAD)).tokens == [*words, EOS]
    assert response(loaded, (*words, EOS, *words, EOS)).tokens == [*words, EOS]
    assert response(loaded, "ox<eos>hen") == Answer([*words, EOS], "ox", "eos")
    assert response(loaded, "ox\nQ: hen?", stop=("\n",)) == Answer(words, "ox", "stop")
    assert response(loaded, "ox\nQ: hen?", "on", stop=("\n",)) == Answer(words, "ox", "stop")


def test_padding_at_the_end_of_a_response_goes() -> None:
    loaded = load_tiny()
    assert response(loaded, (20, 21, PAD, PAD)) == Answer(
        [20, 21], decode(loaded, [20, 21]), "given"
    )
    # One end stays where padding and end are one token.
    same = replace(loaded, pad_id=EOS, tokenizer=tiny_tokenizer())
    same.tokenizer.pad_token = "<eos>"
    assert response(same, (20, EOS, EOS, EOS)).tokens == [20, EOS]
    with pytest.raises(hallutrace.errors.InputError, match="at least one token"):
        response(loaded, (PAD, PAD))


# As real tokenizers and generation_config.json have them, by text: Llama 3, Qwen, Gemma, Phi-3.
TURNS = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{{ '~' }}\n{% endfor %}"


@pytest.mark.parametrize(
    ("eos_token", "turn", "expected"),
    [
        ("#", None, "#"),  # the tokenizer's, not the lowest id
        ("#", "~", "~"),  # a turn of a chat ends otherwise than a text
        ("~", "~", "~"),
        ("<eos>", None, "<eos>"),
    ],
)
def test_a_response_ends_with_what_ends_it_in_its_prompt(
    checkpoint: Path, tmp_path: Path, eos_token: str, turn: str | None, expected: str
) -> None:
    folder = save_tiny(tmp_path / "several")
    tokenizer = with_special({}, chat=True)
    tokenizer.eos_token = eos_token
    tokenizer.chat_template = TURNS if turn else None
    tokenizer.save_pretrained(folder)
    settings_of_model = json.loads((folder / "generation_config.json").read_text())
    marks = [EOS, *(tokenizer.convert_tokens_to_ids(mark) for mark in "#~")]
    settings_of_model["eos_token_id"] = sorted(marks)
    (folder / "generation_config.json").write_text(json.dumps(settings_of_model))
    rows = [{"id": "a", "question": "who?", "response": "ox"}]
    hallutrace.extract(
        hallutrace.ExtractConfig(
            model=str(folder),
            responses=write_lines(tmp_path / "said.jsonl", rows),
            out=tmp_path / "run",
        )
    )
    (trace,) = hallutrace.open(tmp_path / "run")
    end = tokenizer.convert_tokens_to_ids(expected)
    assert trace.answer_tokens.tolist() == [*said(load_tiny(), "ox"), end]
    assert trace.answer == "ox"


def test_an_end_that_only_the_model_knows_ends_a_response() -> None:
    loaded = replace(load_tiny(), eos_ids=(40, 41))
    assert response_end(loaded, None) == 40
    assert response_end(loaded, 41) == 41
    assert response_end(replace(loaded, eos_ids=()), None) is None


def test_the_turn_ends_as_the_chat_template_says() -> None:
    tokenizer = tiny_tokenizer(chat=True)
    tokenizer.chat_template = TURNS
    after = PromptBuilder(tokenizer, None, "auto", {}).turn_end()
    assert tokenizer.decode(after) == "~\n"
    assert PromptBuilder(tokenizer, None, "off", {}).turn_end() == []
    tokenizer.chat_template = "{% for m in messages %}{% if m.role == 'user' %}{{ m.content }}" + (
        "{% else %}{{ raise_exception('only questions') }}{% endif %}{% endfor %}"
    )
    assert PromptBuilder(tokenizer, None, "auto", {}).turn_end() == []


# Tokens that a model does not have ----------------------------------------------------------------


def test_padding_that_has_no_embedding_pads_nothing() -> None:
    from hallutrace.model.loading import describe

    tokenizer = tiny_tokenizer()
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    assert tokenizer.pad_token_id == 128
    loaded = describe(tiny_model("qwen3"), tokenizer, "qwen3", "random")
    assert loaded.pad_id < 128
    assert generate(loaded, PROMPTS, Decoding(6), 0) == generate(
        load_tiny(), PROMPTS, Decoding(6), 0
    )


def test_a_question_with_a_token_that_the_model_lacks_fails_alone(
    run_extract: Extract, questions: Path, checkpoint: Path, tmp_path: Path
) -> None:
    folder = save_tiny(tmp_path / "grown")
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens(["quark"])
    tokenizer.save_pretrained(folder)
    rows = [{"id": f"q{at}", "question": text} for at, text in enumerate(["who?", "a quark?"])]
    write_lines(questions, rows)
    summary = run_extract(model=str(folder))
    assert (summary.traces, summary.failures) == (1, 1)
    line = json.loads((tmp_path / "run" / "failures.jsonl").read_text())
    assert (line["id"], line["stage"], line["error"]) == (
        "q1",
        "prompt",
        "Expected token ids below 128, got 128 - use the tokenizer that the model was trained with",
    )


def test_the_random_numbers_of_the_caller_go_on() -> None:
    torch.manual_seed(7)
    expected = torch.rand(2)
    torch.manual_seed(7)
    generate(load_tiny(), PROMPTS, Decoding(2, temperature=1.0), 3)
    assert torch.equal(torch.rand(2), expected)
