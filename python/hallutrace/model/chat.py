"""The chat template of a tokenizer: rendering, and checks of the arguments that it reads."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from datetime import date, datetime, time
from typing import Any

from hallutrace.errors import InputError
from hallutrace.option_names import parameter
from hallutrace.third_party import refusing
from hallutrace.transformers_compat import template_clock

CLOCK = "strftime_now"  # the template function that reads the clock
# Stands for a question. No template contains it; mixed case shows whether a template changes case.
SENTINEL = "Wxq7 which zebra 42"
# Template arguments that switch the model's reasoning before the answer; on by default in some.
THINKING = ("enable_thinking", "thinking")
_RANDOM = re.compile(r"\|\s*random\b|\blipsum\s*\(")


class ChatTemplate:
    """Renders one question as a chat.

    Args:
        tokenizer: a transformers tokenizer with a chat template.
        arguments: keyword arguments of the template.
        day: the date for templates that read the clock; the time is midnight.

    Attributes:
        source: the template's Jinja source.
        content: format of a message's content: ``text``, or ``parts`` (a list of dicts) if the
            template accepts nothing else.
        reads_clock: whether the rendered prompt depends on the clock.

    Raises:
        InputError: the template fails, leaves the question out, or is not deterministic.
    """

    def __init__(self, tokenizer: Any, arguments: Mapping[str, Any], day: date) -> None:
        self._tokenizer = tokenizer
        self._arguments = dict(arguments)
        self._now = datetime.combine(day, time())
        self._clock_was_read = False
        self.content = "text"
        self.reads_clock = True  # allows the check below to read it
        with refusing("a chat template that can be used", _fix()):
            self.source = str(tokenizer.get_chat_template())
        self._check()
        self.reads_clock = self._clock_was_read

    def render(self, text: str, **arguments: Any) -> str:
        """Renders one user message and the generation prompt.

        Args:
            text: content of the message.
            arguments: further keyword arguments of the template.

        Raises:
            InputError: the template failed.
        """
        message = {"role": "user", "content": self._content(text)}
        return self._apply([message], add_generation_prompt=True, **arguments)

    def render_messages(self, messages: Sequence[Mapping[str, Any]]) -> str:
        """Renders a conversation and the generation prompt.

        Args:
            messages: dicts with ``role`` and ``content``.

        Raises:
            InputError: the template failed.
        """
        return self._apply(messages, add_generation_prompt=True)

    def after_turn(self) -> str:
        """The text that the template writes after an assistant turn; empty if unknown."""
        turns = [
            {"role": "user", "content": self._content("x")},
            {"role": "assistant", "content": self._content(SENTINEL)},
        ]
        try:
            rendered = self._apply(turns, add_generation_prompt=False)
        except InputError:
            return ""
        return rendered.rpartition(SENTINEL)[2] if SENTINEL in rendered else ""

    def reads(self, name: str) -> bool:
        """Whether the template's source contains a name as a whole word."""
        return re.search(rf"\b{re.escape(name)}\b", self.source) is not None

    def thinking_argument(self) -> str | None:
        """The argument that turns reasoning off, if reasoning is on and the user did not set it."""
        for name in THINKING:
            if name in self._arguments or not self.reads(name):
                continue
            if (
                self.render(SENTINEL)
                == self.render(SENTINEL, **{name: True})
                != self.render(SENTINEL, **{name: False})
            ):
                return name
        return None

    def opening(self) -> str:
        """The text that the template writes before the question."""
        return self.render(SENTINEL).partition(SENTINEL)[0]

    def _check(self) -> None:
        if _RANDOM.search(self.source):
            raise InputError(
                "Expected a chat template that gives the same prompt each time, got one that draws "
                f"at random - {_fix()}"
            )
        rendered = self._rendered_sentinel()
        if any(self.render(SENTINEL) != rendered for _ in range(2)):
            raise InputError(
                "Expected a chat template that gives the same prompt each time, got one that does "
                f"not - {_fix()}"
            )

    def _rendered_sentinel(self) -> str:
        """Renders a question as text or, if that fails, as parts; sets ``content``."""
        errors: list[str] = []
        for self.content in ("text", "parts"):
            try:
                rendered = self.render(SENTINEL)
            except InputError as error:
                errors.append(str(error))
                continue
            if SENTINEL.casefold() in rendered.casefold():
                return rendered
            errors.append("")
        if errors[0]:
            raise InputError(errors[0])
        raise InputError(
            "Expected a chat template that holds the question, got one that leaves it out - "
            f"{_fix()}"
        )

    def _content(self, text: str) -> Any:
        return text if self.content == "text" else [{"type": "text", "text": text}]

    def _apply(self, messages: Sequence[Mapping[str, Any]], **arguments: Any) -> str:
        with refusing("a chat template that takes a question", _fix()):
            clock = template_clock(self.source, self._strftime)
            with clock if self.reads(CLOCK) else nullcontext():
                rendered = self._tokenizer.apply_chat_template(
                    list(messages), tokenize=False, **{**self._arguments, **arguments}
                )
        return str(rendered)

    def _strftime(self, form: str) -> str:
        """Formats the fixed date; replaces the template's clock function."""
        if not self.reads_clock:
            raise InputError(
                "Expected a chat template that reads the clock for all questions or for none, "
                "got one that does for this one - give it the date as "
                f"{parameter('chat_template_kwargs')}"
            )
        self._clock_was_read = True
        return self._now.strftime(form)


def _fix() -> str:
    chat, prompt = parameter("chat", "off"), parameter("prompt")
    return f"use {chat} with a {prompt} of your own, or fix the template"
