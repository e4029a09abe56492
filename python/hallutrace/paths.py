"""Paths as users write them."""

from __future__ import annotations

from os import PathLike
from pathlib import Path

from hallutrace.errors import InputError


def expanded(path: str | PathLike[str]) -> Path:
    """A path with the home folder in the place of ``~``, which shells leave in ``--out=~/run``.

    A folder that is really called ``~`` is ``./~``.

    Raises:
        InputError: a character that no path may have.
    """
    path = Path(path)
    if "\0" in str(path):
        raise InputError(f"Expected a path, got {str(path)!r} with a zero byte - remove it")
    try:
        return path.expanduser()
    except RuntimeError:  # no such user
        return path


def expanded_text(text: str) -> str:
    """The same of text that may be a path, or the name of something else."""
    return str(expanded(text)) if text.startswith("~") else text
