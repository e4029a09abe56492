"""Builds the prompt of a question: template, chat template and tokenisation."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any

from hallutrace.errors import InputError, ModelError
from hallutrace.model.chat import ChatTemplate
from hallutrace.model.prompt_checks import PromptChecks
from hallutrace.model.user_notices import Notices
from hallutrace.option_names import parameter
from hallutrace.questions import Question
from hallutrace.third_party import refusing

PLAIN_TEMPLATE = "Question: {question}\nAnswer:"
PLAIN_CONTEXT_TEMPLATE = "{context}\n\nQuestion: {question}\nAnswer:"
CHAT_TEMPLATE = "{question}"
CHAT_CONTEXT_TEMPLATE = "{context}\n\n{question}"
_PLACEHOLDERS = re.compile(r"(\{question\}|\{context\})")


@dataclass(frozen=True, slots=True)
class Prompt:
    """The prompt of one question.

    Attributes:
        text: text of the prompt.
        tokens: token ids of the prompt.
        context: indices of the first token of the context and of the one after the last; None
            without a context.

    Examples:
        >>> Prompt("To be or", [1, 5, 6, 7], context=(1, 3)).boundaries
        [1, 1, 3, 4]
    """

    text: str
    tokens: list[int]
    context: tuple[int, int] | None

    @property
    def boundaries(self) -> list[int]:
        """Key positions at which the segments of the marginals begin.

        The segments are the first token, the tokens before, in and after the context, and the
        answer.
        """
        inner = [] if self.context is None else [max(1, position) for position in self.context]
        return [min(1, len(self.tokens)), *inner, len(self.tokens)]


class PromptBuilder:
    r"""Fills the template, applies the chat template and tokenises.

    Args:
        tokenizer: a transformers tokenizer.
        template: text with ``{question}`` and optionally ``{context}``; None for the default.
        chat: ``auto`` uses the tokenizer's chat template if there is one, ``on`` requires it,
            ``off`` does not use it.
        chat_kwargs: keyword arguments of the chat template.
        day: the date for chat templates that read the clock; None for today.

    Attributes:
        notices: warnings about the prompts.

    Raises:
        InputError: ``chat="on"`` and the tokenizer has no chat template, or the chat template
            fails.

    Examples:
        >>> from hallutrace.model.files import ModelName
        >>> from hallutrace.model.loading import load_tokenizer
        >>> from hallutrace.questions import Question
        >>> builder = PromptBuilder(load_tokenizer(ModelName("demo")), None, "auto", {})
        >>> question = Question("1", "Who?", references=[], context=None, index=0, group="1")
        >>> builder.build(question).text
        'Question: Who?\nAnswer:'
    """

    def __init__(
        self,
        tokenizer: Any,
        template: str | None,
        chat: str,
        chat_kwargs: Mapping[str, Any],
        day: date | None = None,
    ) -> None:
        has_chat = getattr(tokenizer, "chat_template", None) is not None
        if chat == "on" and not has_chat:
            raise InputError(
                "Expected a tokenizer with a chat template, got one without - use "
                f"{parameter('chat', 'off')} or auto"
            )
        self._tokenizer = tokenizer
        self._chat_kwargs = dict(chat_kwargs)
        self._template = template
        self._day = day or date.today()
        self._chat: ChatTemplate | None = None
        if has_chat and chat != "off":
            self._chat = ChatTemplate(tokenizer, chat_kwargs, self._day)
        self._suffix = [] if self._chat else _suffix(tokenizer)
        self.notices = Notices()
        self._checks = PromptChecks(tokenizer, self._chat, template, self.notices)
        self._checks.before(self._chat_kwargs, self._suffix, clock_was_set=day is not None)

    def identity(self) -> dict[str, Any]:
        """The settings that determine the prompts, as JSON."""
        plain, with_context = self._templates()
        identity = {
            "template": plain,
            "template_with_context": with_context,
            "chat": self._chat is not None,
            "chat_template_kwargs": self._chat_kwargs,
        }
        # Included only if they affect the prompts, which is rare.
        if self._chat and self._chat.reads_clock:
            identity["date"] = self._day.isoformat()
        if self._chat and self._chat.content != "text":
            identity["chat_content"] = self._chat.content
        return identity

    def turn_end(self) -> list[int]:
        """Token ids that the chat template writes after an assistant turn; empty without one."""
        after = self._chat.after_turn() if self._chat else ""
        if not after:
            return []
        with refusing(
            "a tokenizer that takes what the chat template writes",
            f"use {parameter('chat', 'off')}",
        ):
            return list(self._tokenizer(after, add_special_tokens=False)["input_ids"])

    def build(self, question: Question) -> Prompt:
        """Builds the prompt of one question.

        Raises:
            InputError: the question, or its rendering by the chat template, cannot be used.
            ModelError: the question has a context and the tokenizer gives no character offsets.
        """
        text, context = self._fill(question)
        if question.messages and self._chat is None:
            raise InputError(
                "Expected a tokenizer with a chat template for a prompt of messages, got one "
                "without - give texts, or set tokenizer.chat_template"
            )
        if context is not None and not getattr(self._tokenizer, "is_fast", False):
            raise ModelError(
                "Expected a tokenizer that tells the characters of its tokens, got a slow one - "
                f"drop {{context}} from {parameter('prompt')}, or use the model's fast tokenizer"
            )
        if self._chat and question.messages:
            text, context = self._chat.render_messages(question.messages), None
        elif self._chat:
            rendered = self._chat.render(text)
            if context is not None:
                context = _rendered_span(context, text, rendered)
            text = rendered
        with refusing("a question that the tokenizer takes", "take it out, or fix its text"):
            encoded = self._tokenizer(
                text, add_special_tokens=not self._chat, return_offsets_mapping=context is not None
            )
        tokens = list(encoded["input_ids"])
        if self._suffix and tokens[-len(self._suffix) :] == self._suffix:
            del tokens[-len(self._suffix) :]
        if not tokens:
            raise InputError(f"Expected a prompt of at least one token, got none for {text!r}")
        self._checks.prompt(question, text, tokens)
        return Prompt(text, tokens, _token_span(encoded, context, len(tokens)))

    def _templates(self) -> tuple[str, str]:
        if self._template is not None:
            return self._template, self._template
        if self._chat:
            return CHAT_TEMPLATE, CHAT_CONTEXT_TEMPLATE
        return PLAIN_TEMPLATE, PLAIN_CONTEXT_TEMPLATE

    def _fill(self, question: Question) -> tuple[str, tuple[int, int] | None]:
        """The filled template and the character range of the first occurrence of the context.

        The template is split first, so that placeholders in a question are not filled.
        """
        plain, with_context = self._templates()
        values = {"{question}": question.question, "{context}": question.context or ""}
        text = ""
        span = None
        for part in _PLACEHOLDERS.split(plain if question.context is None else with_context):
            value = values.get(part, part)
            if part == "{context}" and question.context is not None and span is None:
                span = (len(text), len(text) + len(value))
            text += value
        return text, span


def _suffix(tokenizer: Any) -> list[int]:
    """Special tokens that the tokenizer appends to every text; prompts must not end with them."""
    with refusing("a tokenizer that takes text", "use the model's own tokenizer"):
        bare = list(tokenizer("a", add_special_tokens=False)["input_ids"])
        whole = list(tokenizer("a", add_special_tokens=True)["input_ids"])
    for first in range(len(whole) - len(bare) + 1):
        if bare and whole[first : first + len(bare)] == bare:
            return whole[first + len(bare) :]
    return []


def _rendered_span(span: tuple[int, int], text: str, rendered: str) -> tuple[int, int]:
    """Maps a span of ``text`` to the rendered chat, which may contain the text stripped."""
    kept = text if text in rendered else text.strip()
    offset = rendered.find(kept)
    if offset < 0:
        raise InputError(
            "Expected a chat template that keeps what it is given, got one that rewrites the "
            f"prompt, so the context cannot be found in it - use {parameter('chat', 'off')}, or "
            f"drop {{context}} from {parameter('prompt')}"
        )
    trimmed = 0 if kept == text else len(text) - len(text.lstrip())
    begin, end = (min(max(index - trimmed, 0), len(kept)) for index in span)
    return offset + begin, offset + end


def _token_span(
    encoded: Any, context: tuple[int, int] | None, count: int
) -> tuple[int, int] | None:
    """Range of the first ``count`` tokens that overlap the characters of the context."""
    if context is None:
        return None
    offsets = encoded["offset_mapping"][:count]
    inside = [
        i for i, (begin, end) in enumerate(offsets) if begin < context[1] and end > context[0]
    ]
    return (inside[0], inside[-1] + 1) if inside else (len(offsets), len(offsets))
