"""Quiet end of a command when the reader of its output stops early, as `head` does."""

from __future__ import annotations

import os
import sys
from contextlib import suppress

from rich.console import Console

PIPE_CLOSED = 141  # 128 + SIGPIPE: what a shell says of a program that the signal ended


class PipedConsole(Console):
    """A console that ends the program quietly."""

    def on_broken_pipe(self) -> None:
        """Called by rich."""
        end_writing()
        raise SystemExit(PIPE_CLOSED)


def end_writing() -> None:
    """Drops output that is still to be written, so that the interpreter ends without an error."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            try:
                stream.flush()
            except BrokenPipeError:
                os.dup2(nowhere, stream.fileno())
    os.close(nowhere)
