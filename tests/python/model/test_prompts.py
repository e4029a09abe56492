"""Prompts: templates, chat, tokens, and where the context stands among them."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hallutrace.errors import InputError, ModelError
from hallutrace.model.prompts import Prompt, PromptBuilder
from hallutrace.questions import Question
from tiny_models import BOS, tiny_tokenizer

PLAIN, CHAT = tiny_tokenizer(), tiny_tokenizer(chat=True)


def ask(question: str = "who was it?", context: str | None = None) -> Question:
    return Question("q", question, (), context, 0, "q")


def build(
    question: Question,
    template: str | None = None,
    chat: str = "auto",
    tokenizer: Any = PLAIN,
    **chat_kwargs: Any,
) -> Prompt:
    return PromptBuilder(tokenizer, template, chat, chat_kwargs).build(question)


def read(prompt: Prompt, tokenizer: Any = PLAIN) -> str:
    return str(tokenizer.decode(prompt.tokens, skip_special_tokens=True))


def segments(prompt: Prompt, tokenizer: Any = PLAIN) -> list[str]:
    """The texts of first token, prompt before the context, context, prompt after it."""
    bounds = [0, *prompt.boundaries]
    return [tokenizer.decode(prompt.tokens[begin:end]) for begin, end in pairwise(bounds)]


def test_the_default_is_a_question_and_an_answer_to_come() -> None:
    prompt = build(ask())
    assert prompt.text == read(prompt) == "Question: who was it?\nAnswer:"
    assert prompt.tokens[0] == BOS
    assert prompt.tokens.count(BOS) == 1
    assert (prompt.context, prompt.boundaries) == (None, [1, len(prompt.tokens)])


def test_the_default_puts_a_context_before_the_question() -> None:
    prompt = build(ask(context="It was the hare."))
    assert prompt.text == "It was the hare.\n\nQuestion: who was it?\nAnswer:"
    # The first token is <bos>; nothing stands between it and the context.
    assert segments(prompt) == [
        "<bos>",
        "",
        "It was the hare.",
        "\n\nQuestion: who was it?\nAnswer:",
    ]


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("Q: {question} A:", ["<bos>", "Q: who was it? A:"]),
        ('{"ask": {question}, "n": {}}', ["<bos>", '{"ask": who was it?, "n": {}}']),
        ("{question} {question}", ["<bos>", "who was it? who was it?"]),
        ("[{context}] {question}", ["<bos>", "[] who was it?"]),
    ],
)
def test_templates_without_a_context(template: str, expected: list[str]) -> None:
    assert segments(build(ask(), template)) == expected


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{question} [{context}]:", ["<bos>", "who was it? [", "A hare", "]:"]),
        ("{context} {question}", ["<bos>", "", "A hare", " who was it?"]),
        ("{question}\n{context}", ["<bos>", "who was it?\n", "A hare", ""]),
        ("{x}{context}{y} {question}", ["<bos>", "{x}", "A hare", "{y} who was it?"]),
        ("{question}", ["<bos>", "who was it?"]),
    ],
)
def test_templates_with_a_context(template: str, expected: list[str]) -> None:
    prompt = build(ask(context="A hare"), template)
    assert segments(prompt) == expected


def test_what_is_filled_in_is_not_a_template() -> None:
    prompt = build(ask("{context} or {question}?", "{question}!"), "{context}|{question}")
    assert segments(prompt) == ["<bos>", "", "{question}!", "|{context} or {question}?"]
    alone = build(ask("{context}?"), "{context}|{question}")
    assert alone.text == "|{context}?"


def test_a_context_begins_with_the_first_token_where_nothing_comes_before() -> None:
    bare = tiny_tokenizer()
    bare._tokenizer.post_processor = None
    prompt = build(ask(context="box"), "{context} {question}", tokenizer=bare)
    # The first token is a segment of its own even if it is the context's.
    assert prompt.context == (0, 3)
    assert segments(prompt) == ["b", "", "ox", " who was it?"]


def test_a_token_that_is_partly_context_is_context() -> None:
    prompt = build(ask("?", "here"), "t{context} {question}")  # `th` is one token
    assert segments(prompt) == ["<bos>", "", "there", " ?"]


@pytest.mark.parametrize("context", ["", " "])
def test_an_empty_context_is_an_empty_segment(context: str) -> None:
    prompt = build(ask(context=context), "th{context}er {question}")
    assert prompt.text == f"th{context}er who was it?"
    before, middle, after = segments(prompt)[1:]
    assert middle == context
    assert before + middle + after == prompt.text


@given(
    st.text("the ran\n", max_size=8), st.text("the ran\n", max_size=8), st.text("the\n", max_size=5)
)
def test_segments_make_up_the_prompt(context: str, question: str, glue: str) -> None:
    prompt = build(ask(question, context), glue + "{context}" + glue + "{question}")
    bounds = [0, *prompt.boundaries]
    assert bounds == sorted(bounds)
    assert bounds[-1] == len(prompt.tokens)
    assert "".join(segments(prompt)) == "<bos>" + prompt.text
    if context:
        assert context in segments(prompt)[2]


# Chat -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chat", ["auto", "on"])
def test_a_chat_template_begins_the_sequence_once(chat: str) -> None:
    prompt = build(ask(), chat=chat, tokenizer=CHAT)
    assert prompt.text == "<bos>[user] who was it?\n[assistant] (think) "
    assert prompt.tokens[0] == BOS
    assert prompt.tokens.count(BOS) == 1


def test_chat_can_be_off() -> None:
    assert build(ask(), chat="off", tokenizer=CHAT) == build(ask())


def test_auto_is_off_without_a_chat_template() -> None:
    assert build(ask(), chat="auto") == build(ask(), chat="off")


def test_chat_on_needs_a_chat_template() -> None:
    with pytest.raises(InputError) as raised:
        build(ask(), chat="on")
    assert str(raised.value) == (
        "Expected a tokenizer with a chat template, got one without - use `chat='off'` or auto"
    )


def test_chat_template_arguments_are_passed_on() -> None:
    prompt = build(ask(), tokenizer=CHAT, enable_thinking=False)
    assert prompt.text == "<bos>[user] who was it?\n[assistant] "


def test_a_context_in_a_chat() -> None:
    prompt = build(ask(context="A hare."), tokenizer=CHAT)
    assert segments(prompt) == [
        "<bos>",
        "[user] ",
        "A hare.",
        "\n\nwho was it?\n[assistant] (think) ",
    ]


TRIMMING = "{{ bos_token }}{% for m in messages %}[{{ m.content | trim }}]{% endfor %}"


@pytest.mark.parametrize(
    ("template", "context", "expected"),
    [
        ("{context} {question}", "  A hare", "A hare"),
        ("{question} {context}", "A hare\n ", "A hare"),
        (" {context} {question}", "A hare", "A hare"),
        ("{question} {context}", "  ", ""),
    ],
)
def test_a_chat_template_that_trims(template: str, context: str, expected: str) -> None:
    tokenizer = tiny_tokenizer(chat=True)
    tokenizer.chat_template = TRIMMING
    prompt = build(ask(context=context), template, tokenizer=tokenizer)
    assert segments(prompt)[2] == expected
    assert "".join(segments(prompt)) == prompt.text


def test_a_chat_template_that_keeps_spaces() -> None:
    prompt = build(ask(context="  A hare"), "{context} {question}", tokenizer=CHAT)
    assert segments(prompt)[2] == "  A hare"


def test_a_chat_template_that_rewrites_a_context_is_refused() -> None:
    tokenizer = tiny_tokenizer(chat=True)
    tokenizer.chat_template = "{% for m in messages %}{{ m.content | upper }}{% endfor %}"
    assert build(ask(), tokenizer=tokenizer).text == "WHO WAS IT?"
    with pytest.raises(InputError) as raised:
        build(ask(context="A hare"), tokenizer=tokenizer)
    assert str(raised.value) == (
        "Expected a chat template that keeps what it is given, got one that rewrites the prompt, "
        "so the context cannot be found in it - use `chat='off'`, or drop {context} from `prompt`"
    )


# Refusals ---------------------------------------------------------------------------------------


def test_a_prompt_has_a_token_at_least() -> None:
    bare = tiny_tokenizer()
    bare._tokenizer.post_processor = None
    with pytest.raises(InputError) as raised:
        build(ask(""), "{question}", tokenizer=bare)
    assert str(raised.value) == "Expected a prompt of at least one token, got none for ''"


def test_one_token_is_a_prompt() -> None:
    bare = tiny_tokenizer()
    bare._tokenizer.post_processor = None
    assert build(ask("x"), "{question}", tokenizer=bare).boundaries == [1, 1]


def test_a_slow_tokenizer_cannot_place_a_context() -> None:
    class Slow:
        is_fast = False

        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            return PLAIN(*args, **kwargs)

        def __getattr__(self, name: str) -> Any:
            return getattr(PLAIN, name)

    with pytest.raises(ModelError) as raised:
        build(ask(context="A hare"), tokenizer=Slow())
    assert str(raised.value) == (
        "Expected a tokenizer that tells the characters of its tokens, got a slow one - drop "
        "{context} from `prompt`, or use the model's fast tokenizer"
    )


def test_the_identity_is_all_that_decides_prompts() -> None:
    builder = PromptBuilder(CHAT, None, "auto", {"enable_thinking": False})
    assert builder.identity() == {
        "template": "{question}",
        "template_with_context": "{context}\n\n{question}",
        "chat": True,
        "chat_template_kwargs": {"enable_thinking": False},
    }
    assert PromptBuilder(CHAT, "Q {question}", "off", {}).identity() == {
        "template": "Q {question}",
        "template_with_context": "Q {question}",
        "chat": False,
        "chat_template_kwargs": {},
    }
