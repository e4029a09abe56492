"""Prompts in memory as a source of questions, each with an answer that exists or without one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hallutrace.errors import InputError
from hallutrace.questions.row_parsing import default_id
from hallutrace.questions.rows import BadRow, Question, Response
from hallutrace.questions.source import QuestionSource

Messages = Sequence[Mapping[str, Any]]
"""A conversation: the role and the content of each message."""


class PromptList(QuestionSource):
    """Questions that are prompts, in their order; equal prompts stay questions of their own.

    A prompt's id is that of the same question in a file; the second and later ones that are equal
    get ``-2``, ``-3`` ... behind it, and the group of the first.

    Args:
        prompts: texts, or conversations.
        responses: an answer to each, text or token ids; None where they are to be generated.

    Raises:
        InputError: nothing, something else than texts and conversations, or another number of
            responses.
    """

    def __init__(
        self, prompts: Sequence[str | Messages], responses: Sequence[str | Sequence[int]] | None
    ) -> None:
        if isinstance(prompts, str) or not len(prompts):
            got = "a text" if isinstance(prompts, str) else "none"
            raise InputError(f"Expected `prompts`, a list of texts, got {got} - put it into a list")
        if isinstance(responses, str) or (responses is not None and len(responses) != len(prompts)):
            got = "a text" if isinstance(responses, str) else str(len(responses))
            raise InputError(
                f"Expected `responses`, one for each of {len(prompts)} prompts, got {got} - give a "
                "list of the same length"
            )
        self.name, self.merged = "prompts", 0
        self._responses = responses is not None
        seen: Counter[str] = Counter()
        self._questions = [
            _question(
                at, prompt, () if responses is None else (_response(at, responses[at]),), seen
            )
            for at, prompt in enumerate(prompts)
        ]

    @property
    def total(self) -> int:
        """Number of prompts."""
        return len(self._questions)

    def describe(self) -> list[str]:
        """Nothing: there are no columns to understand."""
        return []

    def identity(self) -> dict[str, object]:
        """What tells this source from others: its kind alone."""
        return {"kind": "responses" if self._responses else "prompts", "spec": "in memory"}

    def __iter__(self) -> Iterator[Question | BadRow]:
        """Every question, in the order of the prompts."""
        return iter(self._questions)


def _question(
    at: int, prompt: str | Messages, responses: tuple[Response, ...], seen: Counter[str]
) -> Question:
    messages = () if isinstance(prompt, str) else _messages(at, prompt)
    text = prompt if isinstance(prompt, str) else str(messages[-1]["content"])
    group = default_id(text, None) if not messages else default_id(repr(messages), None)
    seen[group] += 1
    return Question(
        id=group if seen[group] == 1 else f"{group}-{seen[group]}",
        question=text,
        references=(),
        context=None,
        index=at,
        group=group,
        responses=responses,
        messages=messages,
    )


def _messages(at: int, prompt: Any) -> tuple[Mapping[str, Any], ...]:
    is_conversation = isinstance(prompt, Sequence) and len(prompt) > 0
    if is_conversation and all(
        isinstance(message, Mapping) and {"role", "content"} <= message.keys() for message in prompt
    ):
        return tuple(dict(message) for message in prompt)
    raise InputError(
        f"Expected a text, or a list of messages with role and content, got {prompt!r:.80} at "
        f"`prompts[{at}]` - write it as such"
    )


def _response(at: int, response: Any) -> Response:
    if isinstance(response, str):
        return response
    ids = response.tolist() if hasattr(response, "tolist") else response
    if isinstance(ids, Sequence) and all(isinstance(id_, int) for id_ in ids):
        return tuple(ids)
    raise InputError(
        f"Expected a text or token ids, got {response!r:.80} at `responses[{at}]` - write it so"
    )
