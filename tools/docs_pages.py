"""Pages of the documents that are made when they are built, so that they cannot go stale.

MkDocs calls `on_files`. `reference/command-line.md` comes from the commands themselves, and each
notebook in `docs/notebooks` (a Python file in percent format) becomes a page.
"""

from __future__ import annotations

import re
import textwrap
from pathlib import Path
from typing import Any

import typer
from mkdocs.structure.files import File, Files

from hallutrace.commands.app import app

COMMAND_LINE = "reference/command-line.md"
# Pages that are kept elsewhere in the repository.
ELSEWHERE = {
    "reference/architectures.md": "benches/record/architectures.md",
    "images/replay.svg": "benches/record/replay.svg",
}
_CELL = re.compile(r"^# %%(.*)\n", re.MULTILINE)
_INTRODUCTION = """# Command line

This page is made from the commands when the documents are built; `hallutrace COMMAND --help` says
the same. Exit codes: 0 done; 1 something was found wrong, or a fault of hallutrace; 2 a mistake in
the call; 130 Ctrl-C; 141 the reader of a pipe has gone.
"""


def on_files(files: Files, config: Any) -> Files:
    """Adds the pages that are made, and leaves out the notebooks they are made of."""
    files.append(File.generated(config, COMMAND_LINE, content=command_line()))
    root = Path(config.config_file_path).parent
    for name, source in ELSEWHERE.items():
        files.append(File.generated(config, name, abs_src_path=str(root / source)))
    for source in [file for file in files if file.src_uri.startswith("notebooks/")]:
        files.remove(source)
        path = Path(str(source.abs_src_path))
        page = File.generated(
            config, str(Path(source.src_uri).with_suffix(".md")), content=notebook(path)
        )
        files.append(page)
    return files


def notebook(path: Path) -> str:
    """A notebook in percent format as a page."""
    parts = _CELL.split(path.read_text(encoding="utf-8"))[1:]
    cells = []
    for kind, content in zip(parts[::2], parts[1::2], strict=True):
        if "[markdown]" in kind:
            cells.append(re.sub(r"^# ?", "", content, flags=re.MULTILINE).strip())
        else:
            cells.append(f"```python\n{content.strip()}\n```")
    return "\n\n".join(cells) + "\n"


def command_line() -> str:
    """The reference of all commands, as Markdown."""
    group = typer.main.get_group(app)
    return "\n".join(
        [_INTRODUCTION, *(_command(name, one) for name, one in group.commands.items())]
    )


def _command(name: str, command: Any) -> str:
    context = command.make_context(f"hallutrace {name}", [], resilient_parsing=True)
    usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
    parts = [f"## {name}", f"```text\n{usage}\n```", textwrap.dedent(command.help or "").strip()]
    for title, rows in _panels(command, context).items():
        parts += [f"**{title}**", "\n".join(["| name | meaning |", "|---|---|", *rows])]
    return "\n\n".join(parts) + "\n"


def _panels(command: Any, context: Any) -> dict[str, list[str]]:
    """The rows of each table: arguments first, then options under the headings of the help."""
    panels: dict[str, list[str]] = {}
    for parameter in sorted(command.params, key=lambda one: str(one.param_type_name)):
        record = parameter.get_help_record(context)
        if record is None:  # hidden
            continue
        title = parameter.rich_help_panel or f"{parameter.param_type_name.capitalize()}s"
        name = re.sub(r" <.*>$", "", record[0])  # the Python type of an argument
        panels.setdefault(title, []).append(f"| `{_escaped(name)}` | {_escaped(record[1])} |")
    return panels


def _escaped(text: str) -> str:
    """Text that stays within its cell of a table."""
    return " ".join(text.split()).replace("|", "\\|")
