"""From a question to the tokens of its prompt."""

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
from hallutrace.questions import Question
from hallutrace.third_party import refusing

PLAIN_TEMPLATE = "Question: {question}\nAnswer:"
PLAIN_CONTEXT_TEMPLATE = "{context}\n\nQuestion: {question}\nAnswer:"
CHAT_TEMPLATE = "{question}"
CHAT_CONTEXT_TEMPLATE = "{context}\n\n{question}"
_PLACES = re.compile(r"(\{question\}|\{context\})")


@dataclass(frozen=True, slots=True)
class Prompt:
    """The prompt of one question.

    Attributes:
        text: what the model reads.
        tokens: its token ids.
        context: first token of the context and the one after its last; None without a context.
    """

    text: str
    tokens: list[int]
    context: tuple[int, int] | None

    @property
    def boundaries(self) -> list[int]:
        """Key positions where segments begin: after the first token, the context's, the answer."""
        inner = [] if self.context is None else [max(1, at) for at in self.context]
        return [min(1, len(self.tokens)), *inner, len(self.tokens)]


class PromptBuilder:
    """Fills the template, applies the chat template, tokenises.

    Args:
        tokenizer: of transformers.
        template: text with ``{question}`` and, if wanted, ``{context}``; None takes the default.
        chat: ``auto`` uses the tokenizer's chat template if it has one; ``on`` demands it.
        chat_kwargs: given to the chat template.
        day: the date that a chat template is told which reads the clock; None takes today.

    Attributes:
        notices: what is worth saying of the prompts.

    Raises:
        InputError: ``chat="on"`` where the tokenizer has no chat template, or one that fails.
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
                "Expected a tokenizer with a chat template, got one without - "
                "use --chat off or auto"
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
        """What of it decides the prompts, as JSON."""
        plain, with_context = self._templates()
        identity = {
            "template": plain,
            "template_with_context": with_context,
            "chat": self._chat is not None,
            "chat_template_kwargs": self._chat_kwargs,
        }
        # Named where they matter alone: most prompts have neither.
        if self._chat and self._chat.reads_clock:
            identity["date"] = self._day.isoformat()
        if self._chat and self._chat.content != "text":
            identity["chat_content"] = self._chat.content
        return identity

    def turn_end(self) -> list[int]:
        """The tokens that the chat template puts after a turn of the assistant."""
        after = self._chat.after_turn() if self._chat else ""
        if not after:
            return []
        with refusing("a tokenizer that takes what the chat template writes", "use --chat off"):
            return list(self._tokenizer(after, add_special_tokens=False)["input_ids"])

    def build(self, question: Question) -> Prompt:
        """The prompt of one question.

        Raises:
            InputError: the question, or what the chat template makes of it, cannot be used.
            ModelError: a context, and a tokenizer that cannot place it.
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
                "drop {context} from --prompt, or use the model's fast tokenizer"
            )
        if self._chat and question.messages:
            text, context = self._chat.render_messages(question.messages), None
        elif self._chat:
            rendered = self._chat.render(text)
            if context is not None:
                context = _found_again(context, text, rendered)
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
        """The template filled in, and the characters where the context first stands.

        What is filled in is not read as a template again.
        """
        plain, with_context = self._templates()
        values = {"{question}": question.question, "{context}": question.context or ""}
        text = ""
        span = None
        for part in _PLACES.split(plain if question.context is None else with_context):
            value = values.get(part, part)
            if part == "{context}" and question.context is not None and span is None:
                span = (len(text), len(text) + len(value))
            text += value
        return text, span


def _suffix(tokenizer: Any) -> list[int]:
    """Special tokens that the tokenizer puts after every text; an answer must not follow them."""
    with refusing("a tokenizer that takes text", "use the model's own tokenizer"):
        bare = list(tokenizer("a", add_special_tokens=False)["input_ids"])
        whole = list(tokenizer("a", add_special_tokens=True)["input_ids"])
    for first in range(len(whole) - len(bare) + 1):
        if bare and whole[first : first + len(bare)] == bare:
            return whole[first + len(bare) :]
    return []


def _found_again(span: tuple[int, int], text: str, rendered: str) -> tuple[int, int]:
    """Where the characters of a span of ``text`` are in a chat, which may have trimmed the text."""
    kept = text if text in rendered else text.strip()
    at = rendered.find(kept)
    if at < 0:
        raise InputError(
            "Expected a chat template that keeps what it is given, got one that rewrites the "
            "prompt, so the context cannot be found in it - use --chat off, or drop {context} from "
            "--prompt"
        )
    trimmed = 0 if kept == text else len(text) - len(text.lstrip())
    begin, end = (min(max(place - trimmed, 0), len(kept)) for place in span)
    return at + begin, at + end


def _token_span(
    encoded: Any, context: tuple[int, int] | None, count: int
) -> tuple[int, int] | None:
    """Those of the first ``count`` tokens that overlap the characters of the context."""
    if context is None:
        return None
    offsets = encoded["offset_mapping"][:count]
    inside = [
        at for at, (begin, end) in enumerate(offsets) if begin < context[1] and end > context[0]
    ]
    return (inside[0], inside[-1] + 1) if inside else (len(offsets), len(offsets))
