"""What is worth saying once in a run, however often it is met."""

from __future__ import annotations


class Notices:
    """Lines that wait to be said; each kind of line is said once."""

    def __init__(self) -> None:
        self._said: set[str] = set()
        self._waiting: list[str] = []

    def add(self, kind: str, text: str) -> None:
        """Something worth a line, unless a line of its kind was there before.

        Args:
            kind: a short name.
            text: what was found, and the option that fixes it.
        """
        if kind not in self._said:
            self._said.add(kind)
            self._waiting.append(f"Warning: {text}")

    def take(self) -> list[str]:
        """The lines that were not said yet."""
        lines, self._waiting = self._waiting, []
        return lines
