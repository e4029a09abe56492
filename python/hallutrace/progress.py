"""Who is told of an extraction as it goes on."""

from __future__ import annotations

from typing import Protocol


class Reporter(Protocol):
    """Told of an extraction as it goes on."""

    def note(self, text: str) -> None:
        """Something worth a line."""

    def begin(self, total: int | None, done: int) -> None:
        """Answers expected in all, and those that are done already."""

    def skip(self, answers: int) -> None:
        """So many were done before, or are others' to do, and are passed over."""

    def advance(self, traces: int, tokens: int, failures: int, answers: int) -> None:
        """A batch is done: what became of its answers, and how many they are."""


class Silent:
    """Says nothing; the default of :func:`hallutrace.extract`."""

    def note(self, text: str) -> None:
        """Says nothing."""

    def begin(self, total: int | None, done: int) -> None:
        """Says nothing."""

    def skip(self, answers: int) -> None:
        """Says nothing."""

    def advance(self, traces: int, tokens: int, failures: int, answers: int) -> None:
        """Says nothing."""
