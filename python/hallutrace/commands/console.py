"""Printing of commands: consoles that escape untrusted text, and formats of numbers.

Everything that a person reads goes through ``OUT`` or ``ERR``. Their markup, emoji codes and
highlighting are off, so that ``[final]`` and ``:smile:`` are printed as they are; styles come from
:func:`styled` alone. What a machine reads goes through :func:`print_json` or :func:`print_data`.
"""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from rich.cells import cell_len
from rich.console import ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from hallutrace.commands.closed_pipes import PipedConsole
from hallutrace.escaping import cell, command, plain, visible

__all__ = ["cell", "command", "plain", "visible"]

Item = TypeVar("Item")


class SafeConsole(PipedConsole):
    """A console on which no text can control the terminal.

    Strings are escaped before they are laid out, so that widths are right. Whatever else is
    rendered (what other libraries print beside a progress bar) is escaped when it is rendered.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, **options)

    def print(self, *objects: Any, soft_wrap: bool | None = None, **options: Any) -> None:
        """Prints; lines of text are not broken, so that paths and commands can be copied."""
        if soft_wrap is None:
            soft_wrap = all(isinstance(one, str | Text) for one in objects)
        super().print(*objects, soft_wrap=soft_wrap, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        """Text of a string, escaped."""
        return super().render_str(visible(text), **options)

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """The output, escaped except for the control codes of a progress bar."""
        for segment in super().render(renderable, options):
            text = segment.text if segment.control else visible(segment.text)
            yield segment if text == segment.text else Segment(text, segment.style)


OUT = SafeConsole()
ERR = SafeConsole(stderr=True)


def prepare_streams() -> None:
    """Lets standard output and error take any text: what their encoding lacks is escaped."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def is_unicode(stream: Any) -> bool:
    """Whether a stream can take any character."""
    return (getattr(stream, "encoding", None) or "utf-8").lower().startswith("utf")


def styled(*parts: str | tuple[str, str]) -> Text:
    """Text of parts, those with a style as a pair: ``styled(("runs/demo", "bold"), ": whole")``.

    Examples:
        >>> styled(("runs/demo", "bold"), ": whole").plain
        'runs/demo: whole'
    """
    pairs = ((part, "") if isinstance(part, str) else part for part in parts)
    return Text.assemble(*((visible(text), style) for text, style in pairs))


def right_aligned(text: str, cells: int) -> str:
    """Text on one line with spaces before it; East Asian characters take two cells.

    Examples:
        >>> right_aligned("東", 4)
        '  東'
    """
    shown = plain(text)
    return " " * (cells - cell_len(shown)) + shown


@contextmanager
def stopping(text: str) -> Iterator[None]:
    """Within it, Ctrl-C ends the command and shows how to go on.

    Args:
        text: what is kept.
    """
    try:
        yield
    except KeyboardInterrupt:
        again = command("hallutrace", *sys.argv[1:])
        ERR.print(styled(f"\nStopped. {text}\nTo go on: ", (again, "bold")))
        raise SystemExit(130) from None


def followed(steps: Iterable[Item], what: str, total: int | None = None) -> Iterable[Item]:
    """Steps, with a bar while they are taken if standard error is a terminal."""
    if not ERR.is_terminal:
        return steps
    from rich.progress import track

    return track(steps, what, total, console=ERR, transient=True)


def print_json(content: Any) -> None:
    """Prints a line of JSON in ASCII, which any stream takes; JSON escapes the rest."""
    print(json.dumps(content).replace("\x7f", r"\u007f"))


def print_data(text: str) -> None:
    """Prints lines for a machine: UTF-8 as in a file, escaped where a person reads them."""
    binary = getattr(sys.stdout, "buffer", None)
    if binary is None or sys.stdout.isatty():
        sys.stdout.write(visible(text))
        return
    sys.stdout.flush()
    binary.write(text.encode("utf-8", "backslashreplace"))
    binary.flush()


def bytes_text(count: float) -> str:
    """Bytes in the unit that reads best.

    Examples:
        >>> bytes_text(1_234_567)
        '1.2 MB'
    """
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def duration(seconds: float) -> str:
    """Seconds, minutes or hours.

    Examples:
        >>> duration(90), duration(600)
        ('90 s', '10 min')
    """
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 3600:.1f} h" if seconds >= 7200 else f"{seconds / 60:.0f} min"


def percent(share: float | None) -> str:
    """A share as percent; a dash where there is none.

    Examples:
        >>> percent(0.125), percent(None)
        ('12.5%', '-')
    """
    return "-" if share is None else f"{100 * share:.1f}%"


def decimal(value: float | None) -> str:
    """Three decimals; a dash where there is none.

    Examples:
        >>> decimal(0.5), decimal(None)
        ('0.500', '-')
    """
    return "-" if value is None else f"{value:.3f}"


def spread(lengths: dict[str, float] | None) -> str:
    """Median, least and greatest of lengths; a dash where there are none.

    Examples:
        >>> spread({"median": 12.0, "least": 3, "greatest": 40})
        '12 (3-40)'
    """
    if lengths is None:
        return "-"
    return f"{lengths['median']:.0f} ({lengths['least']:.0f}-{lengths['greatest']:.0f})"
