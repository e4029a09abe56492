"""Warnings about likely mistakes in the prompts of a run, each with the option that fixes it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from hallutrace.model.chat import ChatTemplate
from hallutrace.model.special_tokens import special_texts
from hallutrace.model.user_notices import Notices
from hallutrace.option_names import parameter
from hallutrace.questions import Question

_PLACEHOLDER = re.compile(r"\{[A-Za-z_]\w*\}")
_KNOWN_PLACEHOLDERS = ("{question}", "{context}")
_OPENS_THINKING = re.compile(r"<think(ing)?>\s*$")


class PromptChecks:
    """Checks the templates before the first question, and each prompt.

    Args:
        tokenizer: a transformers tokenizer.
        chat: the chat template; None if none is used.
        template: the user's prompt template; None for the default.
        notices: collects the warnings.
    """

    def __init__(
        self, tokenizer: Any, chat: ChatTemplate | None, template: str | None, notices: Notices
    ) -> None:
        self._tokenizer = tokenizer
        self._chat = chat
        self._template = template
        self._warn = notices.add
        self._marks = special_texts(tokenizer)
        self._opening = ""  # read by _marks_in, which _opening_of calls
        self._opening = self._opening_of(chat) if chat else ""

    def before(self, arguments: Mapping[str, Any], suffix: list[int], clock_was_set: bool) -> None:
        """Checks that need no question.

        Args:
            arguments: the user's arguments of the chat template.
            suffix: token ids that the tokenizer appends to every text.
            clock_was_set: whether the user set the date for templates that read the clock.
        """
        self._check_template()
        if suffix:
            ends = "".join(map(str, self._tokenizer.convert_ids_to_tokens(suffix)))
            self._warn(
                "suffix",
                f"the tokenizer ends every text with {ends}; prompts go without it, because an "
                "answer goes on where its prompt ends.",
            )
        unread = [name for name in arguments if not (self._chat and self._chat.reads(name))]
        if unread:
            subject = "the chat template does not read" if self._chat else "no chat template reads"
            self._warn(
                "arguments",
                f"{subject} {', '.join(unread)} - correct or drop "
                f"{parameter('chat_template_kwargs')}.",
            )
        if clock_was_set and not (self._chat and self._chat.reads_clock):
            self._warn(
                "date", f"nothing in the prompts reads the date of {parameter('template_date')}."
            )
        if self._chat:
            self._check_thinking(self._chat)

    def _check_template(self) -> None:
        template = self._template
        if template is None:
            return
        unknown = sorted({*_PLACEHOLDER.findall(template)} - {*_KNOWN_PLACEHOLDERS})
        if unknown:
            self._warn(
                "placeholders",
                f"nothing fills {', '.join(unknown)} in {parameter('prompt')}, which is kept as "
                "text - it takes {question} and {context}.",
            )
        if self._chat and (marks := self._marks_in(template)):
            self._warn(
                "wrapped",
                f"{parameter('prompt')} has marks of a chat ({', '.join(marks)}), and the chat "
                f"template is put around it - use {parameter('chat', 'off')} for a prompt that is "
                "finished.",
            )

    def _check_thinking(self, chat: ChatTemplate) -> None:
        argument = chat.thinking_argument()
        if argument is not None:
            self._warn(
                "thinking",
                "the chat template lets the model think before it answers, and thinking is what "
                "the traces will hold - turn it off with "
                f"{parameter('chat_template_kwargs', f'{{{argument}: false}}')}, or keep it with "
                f"'{{{argument}: true}}' and enough {parameter('max_new_tokens')}.",
            )
        elif _OPENS_THINKING.search(chat.render("x")):
            self._warn(
                "thinking",
                "prompts end where the model begins to think, so that answers hold its thinking "
                f"- give it enough {parameter('max_new_tokens')}, or choose a model that answers "
                "at once.",
            )

    def prompt(self, question: Question, text: str, tokens: Sequence[int]) -> None:
        """Checks one prompt.

        Args:
            question: the question of the prompt.
            text: text of the prompt.
            tokens: token ids of the prompt.
        """
        self._check_ends(question, tokens)
        if question.question.strip() not in text:
            self._warn(
                "rewritten",
                f"the chat template rewrites what it is given: the question {question.id} is not "
                f"in its prompt as it stands - use {parameter('chat', 'off')} if that is not "
                "meant.",
            )
        if question.context and self._template and "{context}" not in self._template:
            self._warn(
                "context",
                f"questions have a context, and {parameter('prompt')} has no {{context}}: they "
                "are asked without it.",
            )
        marks = self._marks_in(f"{question.question}\n{question.context or ''}")
        if marks:
            fix = (
                f"where questions are finished prompts, use {parameter('chat', 'off')} "
                f"{parameter('prompt', '{question}')}; elsewhere take them out of the text"
                if self._chat
                else "take them out of the text if they are not meant"
            )
            self._warn(
                "marks",
                f"the text of question {question.id} has {', '.join(marks)}, which the model reads "
                f"as marks of a chat or of a text, not as words - {fix}.",
            )

    def _check_ends(self, question: Question, tokens: Sequence[int]) -> None:
        bos, eos = self._tokenizer.bos_token_id, self._tokenizer.eos_token_id
        if bos is not None and list(tokens[:2]) == [bos, bos]:
            self._warn(
                "doubled",
                f"prompts begin with {self._tokenizer.bos_token} twice: it is added to every "
                f"prompt - leave it out of {parameter('prompt')} and of the questions.",
            )
        if eos is not None and eos != bos and tokens[-1] == eos:
            prompt = parameter("prompt")
            off = f"use {parameter('chat', 'off')} with a {prompt} of your own"
            fix = off if self._chat else f"fix {prompt}"
            self._warn(
                "ended",
                f"the prompt of question {question.id} ends with {self._tokenizer.eos_token}, "
                f"after which a model has nothing to say - {fix}.",
            )

    def _opening_of(self, chat: ChatTemplate) -> str:
        """The text that opens a user's turn, such as ``[INST]`` or ``### Human:``, without BOS.

        It is empty for an opening with special tokens, which are searched anyway, and for plain
        words or fewer than 4 characters, which also occur in ordinary text. Lines before the last,
        such as the system prompt, do not belong to it.
        """
        opening = chat.opening().rstrip().rpartition("\n")[2]
        opening = opening.removeprefix(str(self._tokenizer.bos_token)).strip()
        is_ordinary_text = len(opening) < 4 or opening.replace(" ", "").isalnum()
        return "" if is_ordinary_text or self._marks_in(opening) else opening

    def _marks_in(self, text: str) -> list[str]:
        """Special tokens and the opening of a user's turn that occur in a text."""
        found = [mark for mark in self._marks if mark in text]
        if self._opening and self._opening in text:
            found.append(self._opening)
        return found
