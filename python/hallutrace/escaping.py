r"""Untrusted text, made safe to print on a terminal and to paste into a shell.

A question, an answer, a path or a message of another library may contain anything: escape sequences
for the terminal, characters that change the direction of writing or have no width, lone surrogates
that no stream can encode. :func:`visible` shows them as the escapes that Python
writes (``\x1b``, ``\u202e``, ``\udc80``). Backslashes stay as they are, so that LaTeX and Windows
paths are readable.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import sys
from itertools import groupby

# Categories Cc (but for the newline), Cf, Zl, Zp and Cs of Unicode, and what else has no width:
# fillers, joiners, tags, and the variation selectors but for those that choose text or emoji.
_HIDDEN = re.compile(
    r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u00ad\u034f\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2"
    r"\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e\u2060-\u206f\u3164"
    r"\ud800-\udfff\ufe00-\ufe0d\ufeff\uffa0\ufff0-\ufffb\U000110bd\U000110cd"
    r"\U00013430-\U0001343f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
_SHORT = {"\t": r"\t", "\r": r"\r"}
CELL = 200  # characters of a text in a table or a list


def visible(text: str) -> str:
    r"""Text with every character that a terminal would not show, but for newlines, as an escape.

    Args:
        text: any string.

    Returns:
        The same text where all of it can be seen; ``visible(visible(text)) == visible(text)``.

    Examples:
        >>> visible("a \\ b\x1b[31m")
        'a \\ b\\x1b[31m'
    """
    return _HIDDEN.sub(_escape, text)


def plain(text: str) -> str:
    r"""Text on one line, with newlines as ⏎.

    Examples:
        >>> plain("a\nb")
        'a⏎b'
    """
    return visible(text).replace("\n", "⏎")


def cell(text: str, most: int = CELL) -> str:
    """The beginning of a text on one line, for a table or a list, and the length of the text.

    Examples:
        >>> cell("abcdef", 3)
        'abc... (6 characters)'
    """
    if len(text) <= most:
        return plain(text)
    return f"{plain(text[:most])}... ({len(text):,} characters)"


def without_middle(text: str, most: int) -> str:
    """Beginning and end of a text, for messages whose end says what to do.

    Examples:
        >>> without_middle("abcdefghi", 3)
        'ab ... (6 characters left out) ... i'
    """
    if len(text) <= most:
        return text
    end = most // 3
    left_out = len(text) - most
    return f"{text[: most - end]} ... ({left_out:,} characters left out) ... {text[-end:]}"


def _escape(match: re.Match[str]) -> str:
    character = match[0]
    code = ord(character)
    if character in _SHORT:
        return _SHORT[character]
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def command(*words: str | os.PathLike[str]) -> str:
    r"""A command line that can be pasted into a POSIX shell, and means exactly these words there.

    Args:
        words: program and arguments; a path that begins with ``-`` is not read as an option.

    Examples:
        >>> command("hallutrace", "inspect", Path("my run"))
        "hallutrace inspect 'my run'"
    """
    return " ".join(_word(word) for word in words)


def _word(word: str | os.PathLike[str]) -> str:
    text = os.fspath(word)
    if isinstance(word, os.PathLike) and text.startswith("-"):
        text = f".{os.sep}{text}"
    if text.isascii() and text.isprintable():
        return shlex.quote(text)
    typed = {character for character in set(text) if _can_be_typed(character)}
    parts = ((is_typed, "".join(part)) for is_typed, part in groupby(text, key=typed.__contains__))
    return "".join(shlex.quote(part) if is_typed else _printf(part) for is_typed, part in parts)


def _can_be_typed(character: str) -> bool:
    """Whether a character can be printed as it is, and comes back when it is pasted."""
    if _HIDDEN.match(character):
        return False
    try:
        character.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _printf(text: str) -> str:
    """Bytes of a file name or an argument, by a command that every POSIX shell has."""
    try:
        content = os.fsencode(text)
    except UnicodeEncodeError:  # half a surrogate pair, which no file name has
        content = text.encode("utf-8", "surrogatepass")
    octal = "".join(f"\\{byte:03o}" for byte in content)
    return f"\"$(printf '{octal}')\""


def python_literal(text: str) -> str:
    """A string as Python reads it, in double quotes, for code within single quotes of a shell.

    Examples:
        >>> print(python_literal("my run"))
        "my run"
    """
    return visible(json.dumps(text, ensure_ascii=False))


def csv_cell(value: object) -> object:
    r"""A cell of CSV, with zero bytes escaped, because Python 3.10 cannot write them.

    Examples:
        >>> csv_cell("a\0b")
        'a\\x00b'
    """
    return value.replace("\0", r"\x00") if isinstance(value, str) else value
