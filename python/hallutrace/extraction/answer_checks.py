"""Warnings if most of a run's first answers are truncated, empty, identical or reasoning."""

from __future__ import annotations

import re

from hallutrace.model.answer_ends import Answer
from hallutrace.model.user_notices import Notices
from hallutrace.option_names import parameter

FIRST = 50  # answers that are checked
LEAST = 8  # no warnings for fewer answers
# Start of the reasoning that Qwen3, DeepSeek, gpt-oss, Mistral and Seed write before an answer.
_THINKING = re.compile(r"\s*(<think|<\|channel\|>analysis|\[THINK\]|<thought|<seed:think|◁think▷)")


class AnswerChecks:
    """Counts problems in the first generated answers of a run.

    Args:
        notices: collects the warnings.
        max_new_tokens: maximum number of tokens of an answer.

    Examples:
        >>> from hallutrace.model.user_notices import Notices
        >>> checks = AnswerChecks(Notices(), max_new_tokens=16)
        >>> for _ in range(FIRST):
        ...     checks.see("Who?", Answer([7], "", "eos"), "<eos>")
        >>> checks.is_judged
        True
    """

    def __init__(self, notices: Notices, max_new_tokens: int) -> None:
        self._warn = notices.add
        self._max_new_tokens = max_new_tokens
        self._answers = self._truncated = self._empty = self._thinking = 0
        self._texts: set[str] = set()
        self._questions: set[str] = set()
        self._is_judged = False

    def see(self, question: str, answer: Answer, written: str) -> None:
        """Counts one answer; does nothing once the check is complete.

        Args:
            question: text of the question.
            answer: the answer that is stored.
            written: text of the answer with its special tokens.
        """
        if self._is_judged:
            return
        self._answers += 1
        self._truncated += answer.finish_reason == "length"
        self._empty += not answer.text
        self._thinking += _THINKING.match(written) is not None
        self._texts.add(answer.text)
        self._questions.add(question)
        if self._answers >= FIRST:
            self.judge()

    @property
    def is_judged(self) -> bool:
        """Whether the check is complete; later answers are not counted."""
        return self._is_judged

    def judge(self) -> None:
        """Adds the warnings to the notices, once, if at least ``LEAST`` answers were counted."""
        if self._is_judged or self._answers < LEAST:
            return
        self._is_judged = True
        scope = f"of the first {self._answers} answers"
        if 2 * self._thinking > self._answers:
            self._warn(
                "thinking",
                f"{self._thinking} {scope} begin with thinking, which is what the traces hold - "
                "give the chat template an argument that turns it off "
                f"({parameter('chat_template_kwargs', '{enable_thinking: false}')} for many "
                f"models), or enough {parameter('max_new_tokens')}.",
            )
        if 2 * self._truncated > self._answers:
            self._warn(
                "length",
                f"{self._truncated} {scope} were cut at {self._max_new_tokens} tokens - raise "
                f"{parameter('max_new_tokens')}, or end answers with {parameter('stop')} where "
                "the model goes on after them.",
            )
        if 2 * self._empty > self._answers:
            self._warn(
                "empty",
                f"{self._empty} {scope} are empty - look at a prompt with `hallutrace inspect`, "
                f"and change {parameter('prompt')}, {parameter('chat')} or {parameter('stop')}.",
            )
        elif len(self._texts) == 1 and len(self._questions) > 1:
            self._warn(
                "identical",
                f"all {scope} are the same - look at a prompt with `hallutrace inspect`, and "
                f"change {parameter('prompt')} or {parameter('chat')}.",
            )
