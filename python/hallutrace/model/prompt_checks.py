"""What is likely to be wrong with the prompts of a run, said once with the option that fixes it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from hallutrace.model.chat import ChatTemplate
from hallutrace.model.special_tokens import special_texts
from hallutrace.model.user_notices import Notices
from hallutrace.questions import Question

_UNKNOWN_PLACE = re.compile(r"\{[A-Za-z_]\w*\}")
_KNOWN_PLACES = ("{question}", "{context}")
_OPENS_THINKING = re.compile(r"<think(ing)?>\s*$")


class PromptChecks:
    """Looks at the templates before the first question, and at each prompt.

    Args:
        tokenizer: of transformers.
        chat: the chat template, where it is used.
        template: the user's own template; None for the default.
        notices: where findings go.
    """

    def __init__(
        self, tokenizer: Any, chat: ChatTemplate | None, template: str | None, notices: Notices
    ) -> None:
        self._tokenizer = tokenizer
        self._chat = chat
        self._template = template
        self._say = notices.add
        self._marks = special_texts(tokenizer)
        self._opening = ""
        self._opening = self._opening_of(chat) if chat else ""

    def before(self, arguments: Mapping[str, Any], suffix: list[int], clock_was_set: bool) -> None:
        """What can be told before the first question.

        Args:
            arguments: of the chat template.
            suffix: tokens that the tokenizer puts after every text.
            clock_was_set: whether the user gave the date for templates that read the clock.
        """
        self._own_template()
        if suffix:
            ends = "".join(map(str, self._tokenizer.convert_ids_to_tokens(suffix)))
            self._say(
                "suffix",
                f"the tokenizer ends every text with {ends}; prompts go without it, because an "
                "answer goes on where its prompt ends.",
            )
        unread = [name for name in arguments if not (self._chat and self._chat.reads(name))]
        if unread:
            what = "the chat template does not read" if self._chat else "no chat template reads"
            self._say(
                "arguments",
                f"{what} {', '.join(unread)} - correct or drop --chat-template-kwargs.",
            )
        if clock_was_set and not (self._chat and self._chat.reads_clock):
            self._say("date", "nothing in the prompts reads the date of --template-date.")
        if self._chat:
            self._thinking(self._chat)

    def _own_template(self) -> None:
        template = self._template
        if template is None:
            return
        unknown = sorted({*_UNKNOWN_PLACE.findall(template)} - {*_KNOWN_PLACES})
        if unknown:
            self._say(
                "places",
                f"nothing fills {', '.join(unknown)} in --prompt, which is kept as text - "
                "it takes {question} and {context}.",
            )
        if self._chat and (marks := self._marks_in(template)):
            self._say(
                "wrapped",
                f"--prompt has marks of a chat ({', '.join(marks)}), and the chat template is put "
                "around it - use --chat off for a prompt that is finished.",
            )

    def _thinking(self, chat: ChatTemplate) -> None:
        argument = chat.thinking_argument()
        if argument is not None:
            self._say(
                "thinking",
                "the chat template lets the model think before it answers, and thinking is what "
                "the traces will hold - turn it off with "
                f"--chat-template-kwargs '{{{argument}: false}}', or keep it with "
                f"'{{{argument}: true}}' and enough --max-new-tokens.",
            )
        elif _OPENS_THINKING.search(chat.render("x")):
            self._say(
                "thinking",
                "prompts end where the model begins to think, so that answers hold its thinking - "
                "give it enough --max-new-tokens, or choose a model that answers at once.",
            )

    def prompt(self, question: Question, text: str, tokens: Sequence[int]) -> None:
        """What can be told of one prompt.

        Args:
            question: that it asks.
            text: of the prompt.
            tokens: its ids.
        """
        self._ends(question, tokens)
        if question.question.strip() not in text:
            self._say(
                "rewritten",
                f"the chat template rewrites what it is given: the question {question.id} is not "
                "in its prompt as it stands - use --chat off if that is not meant.",
            )
        if question.context and self._template and "{context}" not in self._template:
            self._say(
                "context",
                "questions have a context, and --prompt has no {context}: they are asked without "
                "it.",
            )
        marks = self._marks_in(f"{question.question}\n{question.context or ''}")
        if marks:
            more = (
                "where questions are finished prompts, use --chat off --prompt '{question}'; "
                "elsewhere take them out of the text"
                if self._chat
                else "take them out of the text if they are not meant"
            )
            self._say(
                "marks",
                f"the text of question {question.id} has {', '.join(marks)}, which the model reads "
                f"as marks of a chat or of a text, not as words - {more}.",
            )

    def _ends(self, question: Question, tokens: Sequence[int]) -> None:
        begin, end = self._tokenizer.bos_token_id, self._tokenizer.eos_token_id
        if begin is not None and list(tokens[:2]) == [begin, begin]:
            self._say(
                "doubled",
                f"prompts begin with {self._tokenizer.bos_token} twice: it is added to every "
                "prompt - leave it out of --prompt and of the questions.",
            )
        if end is not None and end != begin and tokens[-1] == end:
            fix = "use --chat off with a --prompt of your own" if self._chat else "fix --prompt"
            self._say(
                "ended",
                f"the prompt of question {question.id} ends with {self._tokenizer.eos_token}, "
                f"after which a model has nothing to say - {fix}.",
            )

    def _opening_of(self, chat: ChatTemplate) -> str:
        """What opens a user's turn where it is written in characters: ``[INST]``, ``### Human:``.

        Openings with special tokens are left out, for those tokens are found by themselves; so are
        plain words, and the system prompt before.
        """
        opening = chat.opening().rstrip().rpartition("\n")[2]
        opening = opening.removeprefix(str(self._tokenizer.bos_token)).strip()
        is_told_by_itself = len(opening) < 4 or opening.replace(" ", "").isalnum()
        return "" if is_told_by_itself or self._marks_in(opening) else opening

    def _marks_in(self, text: str) -> list[str]:
        """Special tokens, and words that open a turn of the chat, that a text spells."""
        found = [mark for mark in self._marks if mark in text]
        if self._opening and self._opening in text:
            found.append(self._opening)
        return found
