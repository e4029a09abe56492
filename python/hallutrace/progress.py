"""Progress of an extraction: what a display receives while it runs."""

from __future__ import annotations

from typing import Protocol


class Reporter(Protocol):
    """Receives the progress of an extraction."""

    def note(self, text: str) -> None:
        """Takes a line of text for the user."""

    def begin(self, total: int | None, done: int) -> None:
        """Takes the number of expected answers, and of those that exist already."""

    def skip(self, answers: int) -> None:
        """Takes the number of answers that exist already, or that another process makes."""

    def advance(self, traces: int, tokens: int, failures: int, answers: int) -> None:
        """Takes the counts of a finished batch."""


class Silent:
    """Shows nothing; the default of :func:`hallutrace.extract`."""

    def note(self, text: str) -> None:
        """Does nothing."""

    def begin(self, total: int | None, done: int) -> None:
        """Does nothing."""

    def skip(self, answers: int) -> None:
        """Does nothing."""

    def advance(self, traces: int, tokens: int, failures: int, answers: int) -> None:
        """Does nothing."""
