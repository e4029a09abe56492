"""Nobody's text steers a terminal, is read as markup, or is lost, whichever command prints it.

``HALLUTRACE_TEXTS=10000 pytest tests/python/commands/test_printing.py`` tries that many texts.
"""

from __future__ import annotations

import ast
import io
import json
import os
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

import hallutrace
from hallutrace.commands.console import SafeConsole, print_data, print_json, right_aligned
from hallutrace.commands.extract import _summary_text
from hallutrace.commands.progress_display import ExtractionDisplay, FitsDisplay
from hallutrace.extraction.summary import Summary
from hostile_texts import assert_harmless, hostile_text, without_space
from printers_detect import PRINTERS

TEXTS = int(os.environ.get("HALLUTRACE_TEXTS", "300"))
AT_ONCE = 20
WIDE = 1_000_000


class Screen(io.StringIO):
    """A stream of a terminal."""

    def isatty(self) -> bool:
        return True


def shown_by(name: str, texts: list[str], is_terminal: bool) -> tuple[str, list[str]]:
    """What a command prints on both streams, and what must be seen in it."""
    stream = Screen() if is_terminal else io.StringIO()
    console = SafeConsole(
        file=stream,
        force_terminal=is_terminal,
        color_system="standard" if is_terminal else None,
        width=WIDE,
    )
    with pytest.MonkeyPatch.context() as patch:
        for module in [one for key, one in sys.modules.items() if "hallutrace.commands" in key]:
            for stream_name in ("OUT", "ERR"):
                if hasattr(module, stream_name):
                    patch.setattr(module, stream_name, console)
        patch.setattr(sys, "stdout", stream)
        patch.setattr(sys, "stderr", stream)
        expected = PRINTERS[name](patch, texts)
    return stream.getvalue(), expected


@pytest.mark.parametrize("name", PRINTERS)
def test_every_text_is_harmless_and_seen(name: str) -> None:
    rng = random.Random(name)
    for example in range(-(-TEXTS // AT_ONCE)):
        texts = [hostile_text(rng) for _ in range(AT_ONCE)]
        is_terminal = example % 4 == 0
        output, expected = shown_by(name, texts, is_terminal)
        assert_harmless(output, is_terminal=is_terminal)
        seen = without_space(output)
        if not is_terminal:  # colours lie between letters there
            lost = [text for text in expected if without_space(text) not in seen]
            assert not lost, f"{lost[0][:500]!r} is not in {output[:5000]!r}"


def test_an_empty_or_an_odd_number_of_texts_is_no_reason() -> None:
    """All of them empty, and all of them the same."""
    for name in PRINTERS:
        for text_ in ("", "[/]", "\n"):
            assert_harmless(shown_by(name, [text_] * AT_ONCE, is_terminal=False)[0])


# Consoles -----------------------------------------------------------------------------------------


def printed(*objects: object, width: int = 40, **options: object) -> str:
    console = SafeConsole(file=io.StringIO(), width=width)
    console.print(*objects, **options)
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_a_console_escapes_whatever_it_is_given() -> None:
    table = Table("\x1b[31mhead", title="\x1b[32mtitle [red]")
    table.add_row("\x1b[33mcell [/red] :smile:")
    table.add_row(Text("\x1b[34mmade elsewhere"))
    output = printed(table, width=100)
    assert_harmless(output)
    for text_ in (r"\x1b[31mhead", r"\x1b[32mtitle [red]", r"\x1b[33mcell [/red] :smile:"):
        assert text_ in output
    assert printed("[final] :smile: 'a' 12") == "[final] :smile: 'a' 12\n"


def test_lines_are_not_broken_and_tables_are() -> None:
    line = " ".join(["word"] * 30)
    assert printed(line) == line + "\n"
    table = Table("column")
    table.add_row("word " * 30)
    assert max(map(len, printed(table).splitlines())) <= 40


def test_wide_characters_are_aligned() -> None:
    assert right_aligned("日本", 6) == "  日本"
    assert right_aligned("ab", 6) == "    ab"
    table = Table("a", "b")
    table.add_row("日本語", "x")
    table.add_row("\x1b", "x")
    assert len({cell_len(line) for line in printed(table).splitlines()}) == 1


def test_tables_are_drawn_with_what_the_stream_has() -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    table = Table("a")
    table.add_row("b")
    SafeConsole(file=stream).print(table)
    stream.flush()
    assert b"|" in stream.buffer.getvalue()  # type: ignore[attr-defined]


def test_progress_bars_are_harmless(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Screen()
    console = SafeConsole(file=stream, force_terminal=True, width=300)
    nasty = "[/red] \x1b[2J\u202e\x9b1m"
    with ExtractionDisplay(console) as live:
        live.begin(3, 0)
        live.note(nasty)
        print(nasty)  # what other libraries print while a bar is shown
        live.advance(1, 1, 1, 2)
    with FitsDisplay(console) as fits:
        fits.begin(3, 1)
        fits.start(nasty)
        fits.epoch(nasty, 1, 0.5, 0.5)
        fits.end(nasty, 1.0, nasty)
    output = stream.getvalue()
    assert_harmless(output, is_terminal=True)
    assert output.count(r"[/red] \x1b[2J\u202e\x9b1m") >= 3


# For machines -------------------------------------------------------------------------------------


def test_json_is_ascii_and_comes_back(capsys: pytest.CaptureFixture[str]) -> None:
    content = {"é\x1b\x7f\x9b": ["\ud800", "日本\U0001f600", "\udcff", "\u202e"]}
    print_json(content)
    output = capsys.readouterr().out
    assert output.isascii()
    assert_harmless(output)
    assert json.loads(output) == content


def test_data_is_raw_in_a_pipe_and_escaped_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", pipe)
    print_data("é\x1b,1\n\ud800,2\n")
    assert pipe.buffer.getvalue() == "é\x1b,1\n\\ud800,2\n".encode()  # type: ignore[attr-defined]
    screen = Screen()
    monkeypatch.setattr(sys, "stdout", screen)
    print_data("é\x1b,1\n")
    assert screen.getvalue() == "é\\x1b,1\n"


# To be pasted -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["demo", "my 'run'", '"double"', "$(id) `id`", "a\\b", "[final]", "n\nl", "\x1b\udcff", "日"],
)
def test_the_suggested_program_opens_the_run(name: str, tmp_path: Path) -> None:
    """The line is given to a shell, with a hallutrace that tells what it is asked to open."""
    summary = Summary(tmp_path / name, 1, 1, 0, 0, None, 1, 1.0, 0.0)
    line = str(_summary_text(summary)).partition("\n  python -c ")[2]
    (tmp_path / "python").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    (tmp_path / "python").chmod(0o755)
    told = tmp_path / "told"
    (tmp_path / "hallutrace.py").write_text(
        f"def open(path):\n    __builtins__['open']({str(told)!r}, 'w').write(ascii(path))\n"
    )
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    environment["PYTHONPATH"] = str(tmp_path)
    subprocess.run(["sh", "-c", f"python -c {line}"], env=environment, capture_output=True)
    assert told.read_text() == ascii(str(tmp_path / name))


# The house ----------------------------------------------------------------------------------------


def test_commands_print_through_the_safe_consoles_alone() -> None:
    """Nothing but `console.py` makes consoles or styled text, or prints by itself."""
    folder = Path(hallutrace.__file__).parent
    files = (folder / "commands").glob("*.py")
    for file in files:
        if file.name == "console.py":
            continue
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in {"print", "Text", "Console"}, f"{file}:{node.lineno}"
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                allowed = node.func.attr not in {"from_markup", "from_ansi", "assemble", "echo"}
                assert allowed, f"{file}:{node.lineno}"
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                assert not re.search(r"\[/?(bold|dim|red|green|yellow)?\]", node.value), (
                    f"{file}:{node.lineno}"
                )
            if isinstance(node, ast.keyword):
                assert node.arg != "markup" or not getattr(node.value, "value", True), file


def test_no_help_is_read_as_markup() -> None:
    from hallutrace.commands.app import app

    for name, command in typer.main.get_command(app).commands.items():  # type: ignore[attr-defined]
        texts = [command.help or "", *(getattr(one, "help", "") or "" for one in command.params)]
        assert not [one for one in texts if "[" in one], name
