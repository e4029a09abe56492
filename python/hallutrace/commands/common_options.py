"""Options that several commands have, examples below their help, and completion of values."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from hallutrace.paths import expanded

Command = Callable[..., None]


def completes(values: Callable[[], Iterable[str]]) -> Callable[[str], list[str]]:
    """Completion of an option's value in the shell.

    Args:
        values: gives all values when the user asks for completion, not before.

    Returns:
        For the argument ``autocompletion`` of ``typer.Option``.

    Examples:
        >>> completes(lambda: ["mean", "max", "each"])("m")
        ['mean', 'max']
    """

    def complete(incomplete: str) -> list[str]:
        return [value for value in values() if value.startswith(incomplete)]

    return complete


def choices(*values: str) -> dict[str, Any]:
    """Arguments of ``typer.Option`` for a value that is one of several: placeholder, completion.

    Args:
        values: words that can be given, and placeholders in capitals for others.

    Examples:
        >>> sorted(choices("N", "auto").items())[1]
        ('metavar', 'N|auto')
    """
    words = [value for value in values if not value.isupper()]
    return {"metavar": "|".join(values), "autocompletion": completes(lambda: words)}


def detector_names() -> list[str]:
    """The detectors that can be named on the command line."""
    from hallutrace.detect.registry import names

    return names()


def load_plugins(files: list[Path] | None) -> list[Path] | None:
    """Runs the files that the user names, before anything is looked up by name.

    Raises:
        InputError: one that fails, or that registers nothing.
    """
    from hallutrace.plugins import load_plugin

    for file in files or []:
        load_plugin(file)
    return files


def add_to(app: typer.Typer, name: str, command: Command, *examples: str) -> None:
    """Adds a command whose help is its docstring and ends with examples.

    Args:
        app: the command line.
        name: of the command.
        command: the function; each parameter is an option or an argument.
        examples: command lines.
    """
    # Typer keeps line breaks within a paragraph; a terminal breaks lines by itself.
    paragraphs = inspect.cleandoc(command.__doc__ or "").split("\n\n")
    text = "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)
    epilog = "\n\n".join(["Examples:", *(f"  {example}" for example in examples)])
    app.command(name, help=text, epilog=epilog)(command)


RunFolder = Annotated[
    Path,
    typer.Argument(
        help="Folder of a run, as `hallutrace extract` wrote it.", metavar="RUN", parser=expanded
    ),
]
NewRun = Annotated[
    Path,
    typer.Option(
        "--out",
        help="Folder of the new run; it must not exist, or be of the same command stopped early.",
        metavar="PATH",
        parser=expanded,
    ),
]
AsJson = Annotated[
    bool, typer.Option("--json", help="Print JSON on standard output, for other programs.")
]
LabelName = Annotated[
    str,
    typer.Option(
        "--label", help="Name of the labels, as made by `hallutrace label`.", metavar="NAME"
    ),
]
Limit = Annotated[
    int | None,
    typer.Option(
        "--limit", help="Use only the first N labelled traces (default: all).", metavar="N", min=1
    ),
]
Device = Annotated[
    str,
    typer.Option(
        help="Device that the model runs on.",
        metavar="auto|cpu|cuda|cuda:N",
        autocompletion=completes(lambda: ("auto", "cpu", "cuda")),
    ),
]
TrustRemoteCode = Annotated[
    bool,
    typer.Option("--trust-remote-code", help="Run code that comes with the model; read it first."),
]
Plugins = Annotated[
    list[Path] | None,
    typer.Option(
        "--plugin",
        help="Python file that registers detectors, labelling protocols or sources of questions "
        "of your own. The command runs it. May be given several times (default: none).",
        metavar="FILE",
        parser=expanded,
        callback=load_plugins,
        is_eager=True,
    ),
]
DetectorFolder = Annotated[
    Path,
    typer.Option(
        "--detector",
        help="Folder of a trained detector, as `hallutrace train` wrote it.",
        metavar="PATH",
        parser=expanded,
    ),
]
