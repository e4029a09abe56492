"""Long lists of names, cut for a message."""

from __future__ import annotations

from collections.abc import Collection

MAX_LISTED = 5  # names that a message has


def listed(keys: Collection[str]) -> str:
    """The first names in alphabetical order, and the number of the others.

    Examples:
        >>> listed(["f", "e", "d", "c", "b", "a"])
        'a, b, c, d, e and 1 more'
    """
    names = sorted(map(str, keys))
    more = f" and {len(names) - MAX_LISTED} more" if len(names) > MAX_LISTED else ""
    return ", ".join(names[:MAX_LISTED]) + more
