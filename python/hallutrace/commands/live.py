"""What a long command says while it works: a live bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Any

from rich.console import Console

PLAIN_SECONDS = 10.0  # between two plain lines


class Live:
    """A bar with traces/s, tokens/s, failures and time left; plain lines when not a terminal.

    Args:
        console: where to write; one that escapes what it prints.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar: Any = None
        self._task: Any = None
        self._total: int | None = None
        self._began = self._said = time.monotonic()
        self._traces = self._tokens = self._failures = self._answers = self._already = 0

    def __enter__(self) -> Live:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def note(self, text: str) -> None:
        """Prints a line."""
        self._console.print(text)

    def begin(self, total: int | None, done: int) -> None:
        """Starts the clock, and the bar on a terminal."""
        self._total, self._already = total, done
        self._began = self._said = time.monotonic()
        if self._console.is_terminal:
            self._bar = _bar(self._console)
            self._task = self._bar.add_task("answers", total=total, completed=done, rates="")
            self._bar.start()

    def skip(self, answers: int) -> None:
        """Moves the bar, without counting for the rates."""
        self._already += answers
        if self._bar is not None:
            self._bar.update(self._task, advance=answers)

    def advance(self, traces: int, tokens: int, failures: int, answers: int) -> None:
        """Moves the bar; a plain line at most every ten seconds."""
        self._traces += traces
        self._tokens += tokens
        self._failures += failures
        self._answers += answers
        if self._bar is not None:
            self._bar.update(self._task, advance=answers, rates=self._rates())
        elif time.monotonic() - self._said >= PLAIN_SECONDS:
            self._said = time.monotonic()
            of = "" if self._total is None else f" of {self._total:,}"
            done = self._already + self._answers
            self.note(f"{done:,}{of} answers, {self._rates()}{self._time_left(done)}")

    def _rates(self) -> str:
        seconds = max(time.monotonic() - self._began, 1e-9)
        rates = f"{self._traces / seconds:.1f} traces/s, {self._tokens / seconds:.0f} tokens/s"
        return rates + (f", {self._failures} failed" if self._failures else "")

    def _time_left(self, done: int) -> str:
        new = done - self._already
        if self._total is None or not new:
            return ""
        # A source may turn out longer than it said.
        left = max(0, self._total - done)
        seconds = (time.monotonic() - self._began) * left / new
        return f", {int(seconds) // 3600}:{int(seconds) // 60 % 60:02}:{int(seconds) % 60:02} left"


def _bar(console: Console) -> Any:
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rates]}", markup=False),
        TimeRemainingColumn(),
        console=console,
        transient=True,
    )
