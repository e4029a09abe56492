"""Messages name parameters to callers of Python, and options to the command line."""

from __future__ import annotations

import ast
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import hallutrace
from hallutrace.config import ExtractConfig
from hallutrace.errors import HallutraceError
from hallutrace.labels import label
from hallutrace.option_names import names_options, naming_options, parameter

PACKAGE = Path(hallutrace.__file__).parent
OPTION = re.compile(r"(?<![\w-])--(?=[a-z]|$)")
COMMAND = re.compile(r"`hallutrace [^`]*`")  # a command to be copied, whoever reads the message
# Options of Chromium, which is another program's command line.
ARGUMENTS = re.compile(r"--[a-z-]+(=\S*)?")
OF_OTHER_PROGRAMS = {"pdf.py"}
RENDERERS = {"parameter", "wording", "command"}


def texts(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """The texts of a module that are no docstrings and stand in no call of a renderer.

    A hole of an f-string stands in the text as ``{}``.
    """
    skipped: set[int] = set()
    for node in ast.walk(tree):  # parents come before their children
        if id(node) in skipped:
            skipped.update(map(id, ast.iter_child_nodes(node)))
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            skipped.add(id(node.value))
        elif isinstance(node, ast.Call) and called(node) in RENDERERS:
            skipped.update(map(id, ast.iter_child_nodes(node)))
        elif isinstance(node, ast.JoinedStr):
            skipped.update(id(part) for part in node.values if isinstance(part, ast.Constant))
            parts = (str(p.value) if isinstance(p, ast.Constant) else "{}" for p in node.values)
            yield node.lineno, "".join(parts)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, node.value


def called(node: ast.Call) -> str:
    """The name of the function that is called."""
    return node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")


def test_no_message_of_a_library_package_names_an_option_by_itself() -> None:
    wrong = [
        f"{path.relative_to(PACKAGE)}:{line}: {text}"
        for path in sorted(PACKAGE.rglob("*.py"))
        if path.parent.name != "commands" and path.name != "option_names.py"
        for line, text in texts(ast.parse(path.read_text(encoding="utf-8")))
        if OPTION.search(COMMAND.sub("", text))
        and not (path.name in OF_OTHER_PROGRAMS and ARGUMENTS.fullmatch(text))
    ]
    assert not wrong


def test_the_check_finds_options_in_texts() -> None:
    source = '''
"""Of --docstring."""
raise E("change --out")
raise E(f"change --{name}, or {parameter('x', '--kept')}")
raise E(f"{x} - see `hallutrace extract --help`")
raise E(f"{wording('delete it', 'give --overwrite')}")
'''
    found = [
        line for line, text in texts(ast.parse(source)) if OPTION.search(COMMAND.sub("", text))
    ]
    assert found == [3]


@pytest.mark.parametrize(
    ("provoke", "to_python", "to_command_line"),
    [
        (
            lambda: ExtractConfig.from_options({"top_k": 0}),
            "Expected `top_k` to be greater than or equal to 1, got 0 - change `top_k`",
            "Expected --top-k to be greater than or equal to 1, got 0 - change --top-k",
        ),
        (
            lambda: label("runs/none", "bleu"),
            "Expected one of exact, contains, f1, rouge-l, got 'bleu' - change `by`, or run the "
            "file that registers it with `hallutrace.plugins.load_plugin`",
            "Expected one of exact, contains, f1, rouge-l, got 'bleu' - change --by, or name the "
            "file that registers it with --plugin FILE",
        ),
    ],
)
def test_a_message_suits_its_reader(
    provoke: Callable[[], object], to_python: str, to_command_line: str
) -> None:
    with pytest.raises(HallutraceError) as raised:
        provoke()
    assert str(raised.value) == to_python
    with naming_options(), pytest.raises(HallutraceError) as raised:
        provoke()
    assert str(raised.value) == to_command_line


def test_options_are_named_in_all_threads_until_the_command_ends() -> None:
    named: list[str] = []
    with pytest.raises(ValueError, match="the command failed"), naming_options():
        thread = threading.Thread(target=lambda: named.append(parameter("batch_size", 1)))
        thread.start()
        thread.join()
        raise ValueError("the command failed")
    assert named == ["--batch-size 1"] and not names_options()
