"""Warnings for the user, each shown once in a run."""

from __future__ import annotations


class Notices:
    """Collects warnings, one of each kind.

    Examples:
        >>> notices = Notices()
        >>> notices.add("date", "no date is read.")
        >>> notices.take(), notices.take()
        (['Warning: no date is read.'], [])
    """

    def __init__(self) -> None:
        self._kinds: set[str] = set()
        self._pending: list[str] = []

    def add(self, kind: str, text: str) -> None:
        """Adds a warning, unless one of its kind was added before.

        Args:
            kind: a short name.
            text: the problem, and the option that fixes it.
        """
        if kind not in self._kinds:
            self._kinds.add(kind)
            self._pending.append(f"Warning: {text}")

    def take(self) -> list[str]:
        """Removes and returns the pending warnings."""
        lines, self._pending = self._pending, []
        return lines
