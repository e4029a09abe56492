"""Text that is shown whole, and command lines that mean what they say."""

from __future__ import annotations

import os
import random
import re
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hallutrace.escaping import cell, command, plain, python_literal, visible, without_middle
from hostile_texts import hostile_text, is_hidden

ANY_TEXT = st.text(st.characters(exclude_categories=()))


def test_every_character_that_cannot_be_seen_becomes_an_escape() -> None:
    """Over all of Unicode, by the database of this Python."""
    for code in range(0x110000):
        character = chr(code)
        shown = visible(character)
        if is_hidden(character):
            assert shown.startswith("\\") and shown.isascii(), hex(code)
            if shown not in (r"\t", r"\r"):
                assert int(shown[2:], 16) == code
        elif shown != character:  # visible by its category, but without width
            assert unicodedata.category(character) in {"Mn", "Lo", "Cn"}, hex(code)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a \\ b", "a \\ b"),
        (r"\frac{a}{b} C:\new", r"\frac{a}{b} C:\new"),
        ("[final] :smile:", "[final] :smile:"),
        ("\x1b[31mred", r"\x1b[31mred"),
        ("\x9b31m", r"\x9b31m"),
        ("a\tb\rc", r"a\tb\rc"),
        ("a\u202eb\u2066c\u200bd", r"a\u202eb\u2066c\u200bd"),
        ("\ud800 \udc80", r"\ud800 \udc80"),
        ("\u2028\u2029\x85", r"\u2028\u2029\x85"),
        ("\U000e0041", r"\U000e0041"),
        ("שלום 日本語 é ❤️", "שלום 日本語 é ❤️"),
        ("a\nb", "a\nb"),
    ],
)
def test_what_is_shown(text: str, shown: str) -> None:
    assert visible(text) == shown
    assert plain(text) == shown.replace("\n", "⏎")


@given(ANY_TEXT)
def test_what_is_shown_is_shown_as_it_is(text: str) -> None:
    assert visible(visible(text)) == visible(text)
    assert visible(text).count("\n") == text.count("\n")
    assert "\n" not in plain(text)


def test_long_texts_are_cut() -> None:
    assert cell("x" * 200) == "x" * 200
    assert cell("x" * 1234567) == "x" * 200 + "... (1,234,567 characters)"
    assert without_middle("abcdef", 6) == "abcdef"
    assert without_middle("a" * 10 + "b" * 10, 9) == ("aaaaaa ... (11 characters left out) ... bbb")


# Shell --------------------------------------------------------------------------------------------


def words_in_a_shell(line: str) -> list[bytes]:
    """The words that a shell makes of a command line."""
    script = f"printf '%s\\0' {line}"
    told = subprocess.run(["sh", "-c", script], capture_output=True, check=True)
    return told.stdout.split(b"\0")[:-1]


def test_commands_can_be_pasted() -> None:
    """All words of some hundreds, and each of them alone."""
    rng = random.Random(0)
    words = [hostile_text(rng).replace("\0", "") for _ in range(400)]
    words = [word for word in words if len(word) < 1000]
    words += [
        "",
        " ",
        "\n",
        "a\n",
        "\x1b\n",
        "\n\n",
        "'",
        "\\",
        "-",
        "~",
        "a\udcffb",
        "é",
        "'\x1b'",
    ]
    # Halves of surrogate pairs are in no argument, but for those that stand for bytes.
    words = [word for word in words if not re.search("[\ud800-\udc7f\udd00-\udfff]", word)]
    line = command(*words)
    assert words_in_a_shell(line) == [os.fsencode(word) for word in words]
    assert visible(line) == line


def test_commands_read_well_where_they_can() -> None:
    assert command("hallutrace", "inspect", Path("runs/demo")) == "hallutrace inspect runs/demo"
    assert command("hallutrace", "inspect", Path("my run")) == "hallutrace inspect 'my run'"
    assert command("hallutrace", "--prompt", "[INST] {question} [/INST]") == (
        "hallutrace --prompt '[INST] {question} [/INST]'"
    )
    assert command("hallutrace", "inspect", Path("-x")) == "hallutrace inspect ./-x"
    assert command("hallutrace", "日本") == "hallutrace '日本'"


def test_what_a_stream_cannot_show_is_pasted_too(monkeypatch: pytest.MonkeyPatch) -> None:
    class Ascii:
        encoding = "ascii"

    with monkeypatch.context() as patched:
        patched.setattr(sys, "stdout", Ascii())
        line = command("caf\u00e9 日本")
    assert line.isascii()
    assert words_in_a_shell(line) == ["caf\u00e9 日本".encode()]


@given(ANY_TEXT)
def test_python_reads_the_same_text(text: str) -> None:
    literal = python_literal(text)
    assert eval(literal) == text
    assert visible(literal) == literal
    assert literal.startswith('"')
