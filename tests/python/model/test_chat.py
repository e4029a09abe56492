"""Chat templates: what they read, what they leave out, and what is worth saying of prompts."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path
from typing import Any

import pytest

import hallutrace
from conftest import Extract, write_lines
from hallutrace.errors import IdentityError, InputError
from hallutrace.extraction.answer_checks import AnswerChecks
from hallutrace.extraction.same_settings import settings_of
from hallutrace.model.answer_ends import Answer
from hallutrace.model.chat import ChatTemplate
from hallutrace.model.prompts import PromptBuilder
from hallutrace.model.user_notices import Notices
from hallutrace.progress import Silent
from hallutrace.questions import Question
from tiny_models import BOS, EOS, save_tiny, tiny_tokenizer
from tiny_tokenizers import ending_texts, with_special

# As Llama 3.2 has it.
CLOCK = (
    "{% if date_string is not defined %}{% if strftime_now is defined %}"
    "{% set date_string = strftime_now('%d %b %Y') %}{% else %}"
    "{% set date_string = '26 Jul 2024' %}{% endif %}{% endif %}"
    "{{ bos_token }}Today: {{ date_string }}\n"
    "{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}"
)
PARTS = (
    "{% for m in messages %}[{{ m.role }}] {% for part in m.content %}{{ part.text }}{% endfor %}\n"
    "{% endfor %}"
)
THINKS = (  # as Qwen3 has it
    "{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}[assistant]\n"
    "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n"
    "{% endif %}"
)


def ask(question: str = "who was it?", context: str | None = None) -> Question:
    return Question("q", question, (), context, 0, "q")


def builder(
    chat_template: str | None = None,
    template: str | None = None,
    tokenizer: Any = None,
    day: date | None = None,
    **arguments: Any,
) -> PromptBuilder:
    tokenizer = tokenizer or tiny_tokenizer(chat=True)
    if chat_template is not None:
        tokenizer.chat_template = chat_template
    return PromptBuilder(tokenizer, template, "auto", arguments, day)


class Notes(Silent):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


# The clock ----------------------------------------------------------------------------------------


def test_a_template_that_reads_the_clock_is_told_the_date_of_the_run() -> None:
    for day, expected in ((date(2024, 7, 26), "26 Jul 2024"), (date(2031, 1, 2), "02 Jan 2031")):
        prompts = builder(CLOCK, day=day)
        assert prompts.build(ask()).text == f"<bos>Today: {expected}\n[user] who was it?\n"
        assert prompts.identity()["date"] == day.isoformat()
    today = builder(CLOCK)
    assert today.identity()["date"] == date.today().isoformat()


def test_a_date_that_nothing_reads_is_no_part_of_the_identity() -> None:
    given = builder(CLOCK, date_string="1 May 1999")
    assert given.build(ask()).text.startswith("<bos>Today: 1 May 1999\n")
    assert "date" not in given.identity()
    assert "date" not in builder().identity()
    useless = builder(day=date(2024, 7, 26), enable_thinking=False)
    assert useless.notices.take() == [
        "Warning: nothing in the prompts reads the date of `template_date`."
    ]


def test_the_clock_goes_on_for_others() -> None:
    tokenizer = tiny_tokenizer(chat=True)
    builder(CLOCK, tokenizer=tokenizer, day=date(2024, 7, 26)).build(ask())
    chat = [{"role": "user", "content": "x"}]
    rendered = tokenizer.apply_chat_template(chat, tokenize=False)
    assert f"Today: {date.today():%d %b %Y}" in rendered


def test_a_template_that_reads_the_clock_for_one_question_costs_that_question() -> None:
    prompts = builder("{% for m in messages %}{{ m.content }}" + (
        "{% if 'today' in m.content %}{{ strftime_now('%Y') }}{% endif %}{% endfor %}"
    ))  # fmt: skip
    assert prompts.build(ask()).text == "who was it?"
    with pytest.raises(InputError, match="got one that does for this one"):
        prompts.build(ask("what is today?"))


def test_a_run_goes_on_with_the_date_it_began_with(
    run_extract: Extract, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = save_tiny(tmp_path / "dated", chat=True)
    tokenizer = tiny_tokenizer(chat=True)
    tokenizer.chat_template = CLOCK
    tokenizer.save_pretrained(folder)
    options = {"model": str(folder), "chat": "on", "shard_size": 2}
    run_extract(limit=2, template_date="2024-07-26", **options)
    run_extract(limit=4, **options)
    store = hallutrace.open(tmp_path / "run")
    assert {trace.meta["prompt"].splitlines()[0] for trace in store} == {"<bos>Today: 26 Jul 2024"}
    with pytest.raises(IdentityError, match=r"prompt\.date is"):
        run_extract(limit=4, template_date="2024-07-27", **options)
    identity = json.loads((tmp_path / "run" / "manifest.json").read_text())["identity"]
    assert settings_of(identity, has_context=False)["template_date"] == "2024-07-26"


# What a template does with a question -------------------------------------------------------------


def test_a_template_that_takes_parts_gets_parts() -> None:
    prompts = builder(PARTS)
    assert prompts.build(ask()).text == "[user] who was it?"
    assert prompts.identity()["chat_content"] == "parts"
    assert "chat_content" not in builder().identity()


@pytest.mark.parametrize(
    ("template", "got"),
    [
        ("{% for m in messages %}[{{ m.role }}]{% endfor %}", "got one that leaves it out"),
        ("{{ raise_exception('no users') }}", "got TemplateError: no users"),
        ("{% for %}", "got TemplateSyntaxError"),
        ("{{ messages[0].content + 1 }}", "got TypeError"),
        ("{{ ['a', 'b'] | random }}{{ messages[0].content }}", "got one that draws at random"),
        ("{{ lipsum() }}{{ messages[0].content }}", "got one that draws at random"),
    ],
)
def test_a_template_that_cannot_be_used_is_refused_before_the_first_question(
    template: str, got: str
) -> None:
    with pytest.raises(InputError) as raised:
        builder(template)
    assert str(raised.value).startswith("Expected a chat template that ")
    assert got in str(raised.value)
    assert str(raised.value).endswith(
        " - use `chat='off'` with a `prompt` of your own, or fix the template"
    )


def test_a_question_that_a_template_refuses_fails_alone(
    run_extract: Extract, questions: Path, tmp_path: Path
) -> None:
    folder = save_tiny(tmp_path / "strict", chat=True)
    tokenizer = tiny_tokenizer(chat=True)
    tokenizer.chat_template = (
        "{% for m in messages %}{% if 'ox' in m.content %}{{ raise_exception('no oxen') }}"
        "{% endif %}{{ m.content }}{% endfor %}"
    )
    tokenizer.save_pretrained(folder)
    rows = [{"id": f"q{at}", "question": text} for at, text in enumerate(["an ox?", "a hen?"])]
    write_lines(questions, rows)
    summary = run_extract(model=str(folder), chat="on")
    assert (summary.traces, summary.failures) == (1, 1)
    line = json.loads((tmp_path / "run" / "failures.jsonl").read_text())
    assert (line["id"], line["stage"]) == ("q0", "prompt")
    assert "got TemplateError: no oxen" in line["error"]


def test_text_that_the_tokenizer_refuses_is_an_error_of_ours() -> None:
    with pytest.raises(InputError, match="Expected a question that the tokenizer takes, got "):
        builder(template="{question}").build(ask("a \ud800 b"))


# What is worth saying -----------------------------------------------------------------------------


def said(prompts: PromptBuilder, *questions: Question) -> list[str]:
    for question in questions or (ask(),):
        prompts.build(question)
    lines = prompts.notices.take()
    for question in questions or (ask(),):
        prompts.build(question)
    assert not prompts.notices.take()
    return lines


def plain(template: str | None, tokenizer: Any = None) -> PromptBuilder:
    return PromptBuilder(tokenizer or tiny_tokenizer(), template, "off", {})


def test_good_prompts_are_not_spoken_of() -> None:
    assert said(plain(None)) == []
    assert said(builder(enable_thinking=False)) == []
    assert said(builder(PARTS), ask(context="It was the hare.")) == []


def test_a_doubled_beginning_is_told() -> None:
    (line,) = said(plain("<bos>Q: {question}\nA:"))
    assert line == (
        "Warning: prompts begin with <bos> twice: it is added to every prompt - leave it out of "
        "`prompt` and of the questions."
    )
    assert said(plain("Q: {question}\nA:")) == []
    wrapped = said(builder(template="<bos>{question}", enable_thinking=False))
    assert [line for line in wrapped if "`chat='off'`" in line]


def test_a_prompt_that_is_wrapped_again_is_told() -> None:
    tokenizer = with_special({"~": "<|im_start|>"}, chat=True)
    tokenizer.chat_template = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}{% endfor %}"
    )
    (line,) = said(builder(template="<|im_start|>user\n{question}", tokenizer=tokenizer))
    assert line == (
        "Warning: `prompt` has marks of a chat (<|im_start|>), and the chat template is put "
        "around it - use `chat='off'` for a prompt that is finished."
    )
    (line,) = said(builder(tokenizer=tokenizer), ask("<|im_start|>user\nwho?"))
    assert line == (
        "Warning: the text of question q has <|im_start|>, which the model reads as marks of a "
        "chat or of a text, not as words - where questions are finished prompts, use "
        "`chat='off'` `prompt='{question}'`; elsewhere take them out of the text."
    )
    assert said(builder(tokenizer=tokenizer), ask("im_start, user?")) == []
    # Where marks are spelled in characters, as Llama 2 has them.
    spelled = "{{ bos_token }}{% for m in messages %}[INST] {{ m.content }} [/INST]{% endfor %}"
    (line,) = said(builder(spelled), ask("[INST] who? [/INST]"))
    assert "has [INST], which" in line


def test_what_a_tokenizer_puts_after_a_text_is_dropped_and_told() -> None:
    prompts = plain("Q: {question}\nA:", ending_texts())
    prompt = prompts.build(ask())
    assert (prompt.tokens[0], prompt.tokens[-1]) == (BOS, tiny_tokenizer()(":")["input_ids"][-1])
    assert EOS not in prompt.tokens
    assert prompts.notices.take() == [
        "Warning: the tokenizer ends every text with <eos>; prompts go without it, because an "
        "answer goes on where its prompt ends."
    ]


def test_a_prompt_that_ends_with_the_end_is_told() -> None:
    (line,) = said(builder("{% for m in messages %}{{ m.content }}{{ eos_token }}{% endfor %}"))
    assert line == (
        "Warning: the prompt of question q ends with <eos>, after which a model has nothing to "
        "say - use `chat='off'` with a `prompt` of your own."
    )


def test_a_question_that_is_rewritten_is_told() -> None:
    (line,) = said(builder("{% for m in messages %}{{ m.content | upper }}{% endfor %}"))
    assert "rewrites what it is given: the question q is not in its prompt" in line


def test_a_context_without_a_place_is_told() -> None:
    (line,) = said(plain("Q: {question}"), ask(context="It was the hare."))
    assert "`prompt` has no {context}: they are asked without it." in line


def test_a_place_that_nothing_fills_is_told() -> None:
    (line,) = said(plain("{question} {answer} {x} {} { context }"))
    assert line == (
        "Warning: nothing fills {answer}, {x} in `prompt`, which is kept as text - it takes "
        "{question} and {context}."
    )


@pytest.mark.parametrize("name", ["enable_thinking", "thinking"])
def test_thinking_that_is_on_is_told(name: str) -> None:
    template = THINKS.replace("enable_thinking", name)
    (line,) = said(builder(template))
    assert f"`chat_template_kwargs='{{{name}: false}}'`" in line
    assert said(builder(template, **{name: False})) == []
    assert said(builder(template, **{name: True})) == []
    # Off unless it is asked for, as in Granite.
    off = "{% for m in messages %}{{ m.content }}{% endfor %}{% if NAME %}<think>{% endif %}"
    off = off.replace("NAME", name)
    assert said(builder(off)) == []


def test_a_template_that_always_thinks_is_told() -> None:
    (line,) = said(builder("{% for m in messages %}{{ m.content }}{% endfor %}<think>\n"))
    assert "prompts end where the model begins to think" in line


def test_arguments_that_no_template_reads_are_told() -> None:
    (line,) = said(builder(PARTS, enable_thinkin=False))
    assert line == (
        "Warning: the chat template does not read enable_thinkin - correct or drop "
        "`chat_template_kwargs`."
    )
    off = PromptBuilder(tiny_tokenizer(chat=True), None, "off", {"enable_thinking": False})
    assert "no chat template reads enable_thinking" in off.notices.take()[0]


def test_a_stop_string_that_cannot_be_written_is_told(run_extract: Extract) -> None:
    notes = Notes()
    run_extract(notes, limit=1, stop=("☃",))
    (line,) = [line for line in notes.notes if "☃" in line]
    assert "cannot write '☃', so `stop='☃'` ends no answer" in line


# Answers ------------------------------------------------------------------------------------------


def judged(*answers: Answer, written: str = "") -> list[str]:
    notices = Notices()
    checks = AnswerChecks(notices, 64)
    for at, answer in enumerate(answers):
        checks.see(f"question {at}", answer, written or answer.text)
    checks.judge()
    checks.judge()
    return notices.take()


def answers(count: int, reason: str, text: str | None = None) -> list[Answer]:
    return [Answer([5], f"a{at}" if text is None else text, reason) for at in range(count)]


def test_answers_that_are_cut_are_told() -> None:
    (line,) = judged(*answers(26, "length"), *answers(24, "eos"), *answers(99, "eos"))
    assert line == (
        "Warning: 26 of the first 50 answers were cut at 64 tokens - raise `max_new_tokens`, or "
        "end answers with `stop` where the model goes on after them."
    )
    assert judged(*answers(25, "length"), *answers(25, "eos"), *answers(99, "length")) == []
    assert judged(*answers(7, "length")) == []  # too few to judge
    assert "8 of the first 8" in judged(*answers(8, "length"))[0]


def test_answers_that_are_empty_the_same_or_thinking_are_told() -> None:
    (line,) = judged(*answers(10, "stop", ""))
    assert line.startswith("Warning: 10 of the first 10 answers are empty - ")
    (line,) = judged(*answers(10, "eos", "Paris"))
    assert line.startswith("Warning: all of the first 10 answers are the same - ")
    for opening in ("<think>\nWell", "<|channel|>analysis<|message|>", " [THINK]", "<thinking>"):
        (line,) = judged(*answers(10, "eos"), written=opening)
        assert "10 of the first 10 answers begin with thinking" in line
    assert judged(*answers(10, "eos"), written="I think so") == []


def test_a_run_says_once_that_its_answers_are_cut(run_extract: Extract, tmp_path: Path) -> None:
    rows = [{"id": str(at), "question": f"{at}?"} for at in range(60)]
    notes = Notes()
    run_extract(notes, questions=str(write_lines(tmp_path / "many.jsonl", rows)), shard_size=20)
    assert sum("were cut at 6 tokens" in line for line in notes.notes) == 1


def test_the_template_is_asked_without_side_effects() -> None:
    tokenizer = tiny_tokenizer(chat=True)
    template = ChatTemplate(tokenizer, {}, date(2024, 7, 26))
    assert template.thinking_argument() == "enable_thinking"
    assert template.opening() == "<bos>[user] "
    assert template.render("x") == "<bos>[user] x\n[assistant] (think) "
