"""Lists of names in messages."""

from __future__ import annotations

from collections.abc import Collection, Iterable

MAX_LISTED = 5  # names that a message has of a long list


def listed(things: Iterable[object]) -> str:
    """All names or numbers, in their order.

    Examples:
        >>> listed([3, 1, 2])
        '3, 1, 2'
    """
    return ", ".join(map(str, things))


def first_listed(keys: Collection[str]) -> str:
    """The first names in alphabetical order, and the number of the others.

    Examples:
        >>> first_listed(["f", "e", "d", "c", "b", "a"])
        'a, b, c, d, e and 1 more'
    """
    names = sorted(map(str, keys))
    more = f" and {len(names) - MAX_LISTED} more" if len(names) > MAX_LISTED else ""
    return listed(names[:MAX_LISTED]) + more
