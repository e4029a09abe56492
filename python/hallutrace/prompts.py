"""From a question to the tokens of its prompt."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hallutrace.errors import InputError, ModelError
from hallutrace.questions import Question

PLAIN_TEMPLATE = "Question: {question}\nAnswer:"
PLAIN_CONTEXT_TEMPLATE = "{context}\n\nQuestion: {question}\nAnswer:"
CHAT_TEMPLATE = "{question}"
CHAT_CONTEXT_TEMPLATE = "{context}\n\n{question}"


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

    Raises:
        InputError: ``chat="on"`` where the tokenizer has no chat template.
    """

    def __init__(
        self, tokenizer: Any, template: str | None, chat: str, chat_kwargs: Mapping[str, Any]
    ) -> None:
        has_chat = getattr(tokenizer, "chat_template", None) is not None
        if chat == "on" and not has_chat:
            raise InputError(
                "Expected a tokenizer with a chat template, got one without - "
                "use --chat off or auto"
            )
        self._tokenizer = tokenizer
        self._chat = has_chat and chat != "off"
        self._chat_kwargs = dict(chat_kwargs)
        self._template = template

    def identity(self) -> dict[str, Any]:
        """What of it decides the prompts, as JSON."""
        plain, with_context = self._templates()
        return {
            "template": plain,
            "template_with_context": with_context,
            "chat": self._chat,
            "chat_template_kwargs": self._chat_kwargs,
        }

    def build(self, question: Question) -> Prompt:
        """The prompt of one question."""
        text, context = self._fill(question)
        if context is not None and not getattr(self._tokenizer, "is_fast", False):
            raise ModelError(
                "Expected a tokenizer that tells the characters of its tokens, got a slow one - "
                "drop {context} from --prompt, or use the model's fast tokenizer"
            )
        if self._chat:
            rendered = self._tokenizer.apply_chat_template(
                [{"role": "user", "content": text}],
                tokenize=False,
                add_generation_prompt=True,
                **self._chat_kwargs,
            )
            if context is not None:
                context = _found_again(context, text, rendered)
            text = rendered
        encoded = self._tokenizer(
            text, add_special_tokens=not self._chat, return_offsets_mapping=context is not None
        )
        tokens = list(encoded["input_ids"])
        if not tokens:
            raise InputError(f"Expected a prompt of at least one token, got none for {text!r}")
        return Prompt(text, tokens, _token_span(encoded, context))

    def _templates(self) -> tuple[str, str]:
        if self._template is not None:
            return self._template, self._template
        if self._chat:
            return CHAT_TEMPLATE, CHAT_CONTEXT_TEMPLATE
        return PLAIN_TEMPLATE, PLAIN_CONTEXT_TEMPLATE

    def _fill(self, question: Question) -> tuple[str, tuple[int, int] | None]:
        """The template filled in, and the characters where the context stands."""
        plain, with_context = self._templates()
        if question.context is None:
            filled = plain.replace("{context}", "").replace("{question}", question.question)
            return filled, None
        before, found, after = with_context.partition("{context}")
        before = before.replace("{question}", question.question)
        after = after.replace("{question}", question.question)
        if not found:
            return before, None
        span = (len(before), len(before) + len(question.context))
        return before + question.context + after, span


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


def _token_span(encoded: Any, context: tuple[int, int] | None) -> tuple[int, int] | None:
    """The tokens that overlap the characters of the context."""
    if context is None:
        return None
    offsets = encoded["offset_mapping"]
    inside = [
        at for at, (begin, end) in enumerate(offsets) if begin < context[1] and end > context[0]
    ]
    return (inside[0], inside[-1] + 1) if inside else (len(offsets), len(offsets))
