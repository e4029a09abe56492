"""Warnings about the first answers of a run: cut short, empty, identical, or thinking."""

from __future__ import annotations

import re

from hallutrace.model.answer_ends import Answer
from hallutrace.model.user_notices import Notices

FIRST = 50  # answers that are looked at
LEAST = 8  # answers below which there are no warnings
# How answers begin where a model thinks first: Qwen3, DeepSeek, gpt-oss, Mistral, Seed.
_THINKING = re.compile(r"\s*(<think|<\|channel\|>analysis|\[THINK\]|<thought|<seed:think|◁think▷)")


class AnswerChecks:
    """Counts problems in the first generated answers of a run.

    Args:
        notices: receive the warnings.
        max_new_tokens: longest answer.
    """

    def __init__(self, notices: Notices, max_new_tokens: int) -> None:
        self._say = notices.add
        self._limit = max_new_tokens
        self._seen = self._cut = self._empty = self._thinking = 0
        self._texts: set[str] = set()
        self._questions: set[str] = set()
        self._is_judged = False

    def see(self, question: str, answer: Answer, written: str) -> None:
        """Counts one answer.

        Args:
            question: its text.
            answer: as it is stored.
            written: its text with special tokens.
        """
        if self._is_judged:
            return
        self._seen += 1
        self._cut += answer.finish_reason == "length"
        self._empty += not answer.text
        self._thinking += _THINKING.match(written) is not None
        self._texts.add(answer.text)
        self._questions.add(question)
        if self._seen >= FIRST:
            self.judge()

    @property
    def is_judged(self) -> bool:
        """Whether all answers that are looked at were counted."""
        return self._is_judged

    def judge(self) -> None:
        """Gives the warnings, unless there are too few answers; later answers are not counted."""
        if self._is_judged or self._seen < LEAST:
            return
        self._is_judged = True
        of = f"of the first {self._seen} answers"
        if 2 * self._thinking > self._seen:
            self._say(
                "thinking",
                f"{self._thinking} {of} begin with thinking, which is what the traces hold - give "
                "the chat template an argument that turns it off (--chat-template-kwargs "
                "'{enable_thinking: false}' for many models), or enough --max-new-tokens.",
            )
        if 2 * self._cut > self._seen:
            self._say(
                "length",
                f"{self._cut} {of} were cut at {self._limit} tokens - raise --max-new-tokens, or "
                "end answers with --stop where the model goes on after them.",
            )
        if 2 * self._empty > self._seen:
            self._say(
                "empty",
                f"{self._empty} {of} are empty - look at a prompt with `hallutrace inspect`, and "
                "change --prompt, --chat or --stop.",
            )
        elif len(self._texts) == 1 and len(self._questions) > 1:
            self._say(
                "identical",
                f"all {of} are the same - look at a prompt with `hallutrace inspect`, and change "
                "--prompt or --chat.",
            )
