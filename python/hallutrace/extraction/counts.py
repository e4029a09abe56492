"""Counts of the traces, failures and tokens of a shard."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

from hallutrace.canonical_json import canonical

INPUT_STAGES = ("prompt", "response")  # stages whose failures the input causes


@dataclass(slots=True)
class Tally:
    """Counts of one shard or one batch.

    Attributes:
        traces: written traces.
        failures: questions or samples without a trace.
        unexpected_failures: failures that the input did not cause.
        with_references: traces of questions with reference answers.
        right_answers: traces whose answer contains a reference.
        answer_tokens: answer tokens of all traces.
        keys: number in the shard, question id, sample and source index of each trace.
        halvings: ``[batch, size]`` of each halving: batch number and size of the first half.
        first_error: message of the first failure; empty without failures.

    Examples:
        >>> tally = Tally(traces=2, answer_tokens=9)
        >>> tally.failed("replay", "out of memory")
        >>> tally.counts()["failures"], tally.unexpected_failures
        (1, 1)
        >>> Tally.from_note(tally.to_note()) == tally
        True
    """

    traces: int = 0
    failures: int = 0
    unexpected_failures: int = 0
    with_references: int = 0
    right_answers: int = 0
    answer_tokens: int = 0
    keys: list[tuple[int, str, int, int]] = field(default_factory=list)
    halvings: list[list[int]] = field(default_factory=list)
    first_error: str = ""

    def add(self, other: Tally) -> None:
        """Adds the counts of a later batch."""
        first_error = self.first_error or other.first_error
        for name in self.__slots__:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.first_error = first_error

    def failed(self, stage: str, reason: str) -> None:
        """Counts a failure."""
        self.failures += 1
        self.unexpected_failures += stage not in INPUT_STAGES
        self.first_error = self.first_error or reason

    def counts(self) -> dict[str, int]:
        """The numbers that the commit record of the shard stores."""
        return {
            "traces": self.traces,
            "failures": self.failures,
            "judged": self.with_references,
            "right": self.right_answers,
            "answer_tokens": self.answer_tokens,
        }

    def to_note(self) -> str:
        """The counts as JSON, for the journal of the shard."""
        return canonical({name: getattr(self, name) for name in self.__slots__}).decode()

    @classmethod
    def from_note(cls, note: str) -> Tally:
        """The counts that :meth:`to_note` wrote."""
        content = json.loads(note)
        content["keys"] = [tuple(key) for key in content["keys"]]
        return cls(**content)
