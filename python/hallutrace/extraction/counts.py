"""Counts of traces, failures and tokens of a shard while it is made."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

from hallutrace.canonical_json import canonical

INPUT_STAGES = ("prompt", "response")  # where a failure is caused by the input
COUNTS = ("traces", "failures", "judged", "right", "answer_tokens")


@dataclass(slots=True)
class Tally:
    """Counts of one shard, or of one batch of it.

    Attributes:
        traces: that were written.
        failures: questions, or samples, that gave no trace.
        broken: those of them that are not caused by the input.
        judged: answers of questions with references.
        right: of those, answers that contain one.
        answer_tokens: of all traces.
        keys: number in the shard, question id, sample and index in the source of each trace.
        halvings: ``[batch, size]`` of batches that were halved.
        first_error: shown where every question fails.
    """

    traces: int = 0
    failures: int = 0
    broken: int = 0
    judged: int = 0
    right: int = 0
    answer_tokens: int = 0
    keys: list[tuple[int, str, int, int]] = field(default_factory=list)
    halvings: list[list[int]] = field(default_factory=list)
    first_error: str = ""

    def add(self, other: Tally) -> None:
        """Adds later counts."""
        first_error = self.first_error or other.first_error
        for name in self.__slots__:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.first_error = first_error

    def failed(self, stage: str, reason: str) -> None:
        """Counts a failure."""
        self.failures += 1
        self.broken += stage not in INPUT_STAGES
        self.first_error = self.first_error or reason

    def counts(self) -> dict[str, int]:
        """The numbers, as a commit record has them."""
        return {name: getattr(self, name) for name in COUNTS}

    def to_note(self) -> str:
        """One batch, as the journal keeps it."""
        return canonical({name: getattr(self, name) for name in self.__slots__}).decode()

    @classmethod
    def from_note(cls, note: str) -> Tally:
        """A batch that the journal kept."""
        content = json.loads(note)
        content["keys"] = [tuple(key) for key in content["keys"]]
        return cls(**content)
