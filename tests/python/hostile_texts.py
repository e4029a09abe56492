"""Random texts that a terminal, a markup language or a shell could read as more than text."""

from __future__ import annotations

import random
import re
import unicodedata

PIECES = (
    # markup and codes of rich
    "[red]", "[/red]", "[/INST]", "[final]", "[bold", "[/]", "]", "\\", "\\[", "a \\ b", ":smile:",
    "[link=https://example.org]x[/link]", "[@click=f()]x", "\\frac{a}{b}", "C:\\new\\table",
    # escape sequences and control characters
    "\x1b[31m", "\x1b[2J", "\x1b]0;title\x07", "\x1b]8;;file:///x\x1b\\", "\x9b31m", "\x90q\x9c",
    "\r", "\b", "\0", "\n", "\n\n", "\t", "\v", "\f", "\x1c", "\x7f", "\x85", "\u2028", "\u2029",
    # direction, no width, no character
    "\u202e", "\u202c", "\u2066", "\u2069", "\u200f", "\u200b", "\u200d", "\ufeff", "\u00ad",
    "\u3164", "\U000e0041", "\ufe01", "\ud800", "\udc80", "\udfff", "\ud83d\ude00",
    # scripts
    "שלום", "مرحبا بالعالم", "日本語", "한국어", "👨‍👩‍👧", "❤️", "é", "e\u0301", "z\u0335\u0320",
    "½", "⏎", "…",
    # shells, formats, numbers
    "'", '"', "`id`", "$(id)", "$HOME", "!!", "%s", "{x}", "{", "~", "-x", "--", ";", "&", "*", "?",
    " ", "  ", "word", "0", "-1", "<td>", "|", "# ",
)  # fmt: skip
MEGABYTE = 1 << 20
LONG = 4000  # of so many texts one is a megabyte long


def hostile_text(rng: random.Random) -> str:
    """A text of a few pieces and characters; rarely of a megabyte."""
    parts = [
        chr(rng.randrange(0x110000)) if rng.random() < 0.2 else rng.choice(PIECES)
        for _ in range(rng.randrange(8))
    ]
    text = "".join(parts)
    if text and rng.randrange(LONG) == 0:
        text *= MEGABYTE // len(text)
    return text


def is_hidden(character: str) -> bool:
    """Whether a character may steer a terminal or cannot be seen, by the Unicode database."""
    return unicodedata.category(character) in {"Cc", "Cf", "Cs", "Zl", "Zp"} and character != "\n"


# What rich writes itself: colours, and the cursor of a progress bar.
OWN_CODES = re.compile(r"\x1b\[[0-9;]*m|\x1b\[\?25[hl]|\x1b\[[0-9]*[AK]|\r(?=\x1b|[^\n])")


def assert_harmless(output: str, *, is_terminal: bool = False) -> None:
    """No character of the output is hidden, but for the codes of a forced terminal."""
    text = OWN_CODES.sub("", output) if is_terminal else output
    hidden = sorted({hex(ord(one)) for one in set(text) if is_hidden(one)})
    assert not hidden, f"{hidden} in {text[:2000]!r}"


def without_space(text: str) -> str:
    """Without what a table may add or take away."""
    return "".join(text.split())
