"""Paths as users write them."""

from __future__ import annotations

import os
from os import PathLike
from pathlib import Path

from hallutrace.errors import InputError


def expanded(path: str | PathLike[str]) -> Path:
    """A path with the home folder for ``~``, which shells leave as it is in ``--out=~/run``.

    A folder that is really called ``~`` is ``./~``.

    Raises:
        InputError: a character that no path may have.

    Examples:
        >>> expanded("~/run") == Path.home() / "run"
        True
    """
    text, path = os.fspath(path), Path(path)
    if "\0" in text:
        raise InputError(f"Expected a path, got {text!r} with a zero byte - remove it")
    if not text.startswith("~"):
        # Of "./~" a path keeps "~" alone, which must not be taken for the home folder later.
        return path.absolute() if str(path).startswith("~") else path
    try:
        return path.expanduser()
    except RuntimeError:  # no such user
        return path


def expanded_text(text: str) -> str:
    """The same for text that is a path or another name.

    Examples:
        >>> expanded_text("Qwen/Qwen3-4B")
        'Qwen/Qwen3-4B'
    """
    return str(expanded(text)) if text.startswith("~") else text
