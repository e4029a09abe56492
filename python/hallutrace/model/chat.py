"""The chat template of a tokenizer: rendered, and asked what it reads and what it does."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from datetime import date, datetime, time
from typing import Any

from hallutrace.errors import InputError
from hallutrace.third_party import refusing
from hallutrace.transformers_compat import template_clock

CLOCK = "strftime_now"  # the function by which templates read the clock
SENTINEL = "Wxq7 which zebra 42"  # stands for a question; no template has it, case tells rewriting
# Arguments by which templates let a model think before it answers; on by default in some.
THINKING = ("enable_thinking", "thinking")
_RANDOM = re.compile(r"\|\s*random\b|\blipsum\s*\(")
_FIX = "use --chat off with a --prompt of your own, or fix the template"


class ChatTemplate:
    """Renders one question as a chat.

    Args:
        tokenizer: of transformers, with a chat template.
        arguments: given to the template.
        day: the date that the template is told where it reads the clock.

    Attributes:
        source: the template's text.
        content: how a message's content is given: ``text``, or ``parts`` where the template takes
            nothing else.
        reads_clock: whether what it makes of a question depends on the clock.

    Raises:
        InputError: it fails, leaves the question out, or gives something else each time.
    """

    def __init__(self, tokenizer: Any, arguments: Mapping[str, Any], day: date) -> None:
        self._tokenizer = tokenizer
        self._arguments = dict(arguments)
        self._now = datetime.combine(day, time())
        self._clock_was_read = False
        self.content = "text"
        self.reads_clock = True  # until it is known, any template may
        with refusing("a chat template that can be used", _FIX):
            self.source = str(tokenizer.get_chat_template())
        self._check()
        self.reads_clock = self._clock_was_read

    def render(self, text: str, **arguments: Any) -> str:
        """A prompt that ends where the assistant begins to speak.

        Raises:
            InputError: the template failed.
        """
        message = {"role": "user", "content": self._content(text)}
        return self._apply([message], add_generation_prompt=True, **arguments)

    def render_messages(self, messages: Sequence[Mapping[str, Any]]) -> str:
        """A prompt of a conversation, which the assistant goes on with.

        Args:
            messages: role and content of each.

        Raises:
            InputError: the template failed.
        """
        return self._apply(messages, add_generation_prompt=True)

    def after_turn(self) -> str:
        """What the template puts after a turn of the assistant; nothing where it cannot tell."""
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
        """Whether the template mentions an argument."""
        return re.search(rf"\b{re.escape(name)}\b", self.source) is not None

    def thinking_argument(self) -> str | None:
        """The argument that turns thinking off, where it is on and nobody asked for it."""
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
        """What the template puts before the question, as it would stand in a finished prompt."""
        return self.render(SENTINEL).partition(SENTINEL)[0]

    def _check(self) -> None:
        if _RANDOM.search(self.source):
            raise InputError(
                "Expected a chat template that gives the same prompt each time, got one that draws "
                f"at random - {_FIX}"
            )
        rendered = self._rendered_sentinel()
        if any(self.render(SENTINEL) != rendered for _ in range(2)):
            raise InputError(
                "Expected a chat template that gives the same prompt each time, got one that does "
                f"not - {_FIX}"
            )

    def _rendered_sentinel(self) -> str:
        """The template with a question in it, given as text or else as parts."""
        found: list[str] = []
        for self.content in ("text", "parts"):
            try:
                rendered = self.render(SENTINEL)
            except InputError as error:
                found.append(str(error))
                continue
            if SENTINEL.casefold() in rendered.casefold():
                return rendered
            found.append("")
        if found[0]:
            raise InputError(found[0])
        raise InputError(
            f"Expected a chat template that holds the question, got one that leaves it out - {_FIX}"
        )

    def _content(self, text: str) -> Any:
        return text if self.content == "text" else [{"type": "text", "text": text}]

    def _apply(self, messages: Sequence[Mapping[str, Any]], **arguments: Any) -> str:
        with refusing("a chat template that takes a question", _FIX):
            clock = template_clock(self.source, self._strftime)
            with clock if self.reads(CLOCK) else nullcontext():
                rendered = self._tokenizer.apply_chat_template(
                    list(messages), tokenize=False, **{**self._arguments, **arguments}
                )
        return str(rendered)

    def _strftime(self, form: str) -> str:
        """The clock that a template reads: it stands still."""
        if not self.reads_clock:
            raise InputError(
                "Expected a chat template that reads the clock for all questions or for none, got "
                "one that does for this one - give it the date as --chat-template-kwargs"
            )
        self._clock_was_read = True
        return self._now.strftime(form)
