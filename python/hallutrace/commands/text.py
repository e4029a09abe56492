"""How commands write numbers and text."""

from __future__ import annotations

import sys

from hallutrace.commands.pipes import PipedConsole

OUT = PipedConsole()
ERR = PipedConsole(stderr=True)


def quiet_libraries(is_small: bool) -> None:
    """Keeps transformers from talking over the progress bar."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    if is_small or not sys.stderr.isatty():
        logging.disable_progress_bar()


def plain(text: str) -> str:
    """Text that rich does not read as markup, whitespace made visible."""
    return text.replace("[", r"\[").replace("\n", "⏎")


def bytes_text(count: float) -> str:
    """Bytes in the unit that reads best."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def duration(seconds: float) -> str:
    """Seconds, minutes or hours."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 3600:.1f} h" if seconds >= 7200 else f"{seconds / 60:.0f} min"


def percent(share: float | None) -> str:
    """A share as percent; a dash where there is none."""
    return "-" if share is None else f"{100 * share:.1f}%"


def decimal(value: float | None) -> str:
    """Three decimals; a dash where there is none."""
    return "-" if value is None else f"{value:.3f}"


def spread(lengths: dict[str, float] | None) -> str:
    """Median, least and greatest of lengths; a dash where there are none."""
    if lengths is None:
        return "-"
    return f"{lengths['median']:.0f} ({lengths['least']:.0f}-{lengths['greatest']:.0f})"
