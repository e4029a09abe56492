"""Progress of long commands: a live bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from typing import Any

from rich.console import Console

from hallutrace.commands.console import cell

PLAIN_SECONDS = 10.0  # between two plain lines


class LiveDisplay:
    """A bar with a text beside it; where there is no terminal, at most a line every ten seconds.

    Args:
        console: where to write; it escapes what it prints.
        unit: what the bar counts, such as ``answers``.
    """

    def __init__(self, console: Console, unit: str) -> None:
        self._console, self._unit = console, unit
        self._bar: Any = None
        self._task: Any = None
        self._total: int | None = None
        self._done = 0
        self._printed = time.monotonic()

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def note(self, text: str) -> None:
        """Prints a line."""
        self._console.print(text)

    def begin(self, total: int | None, done: int) -> None:
        """Starts the bar on a terminal.

        Args:
            total: steps of the whole task, None where that is not known.
            done: steps that were done before.
        """
        self._total, self._done = total, done
        self._printed = time.monotonic()
        if self._console.is_terminal:
            self._bar = _bar(self._console)
            self._task = self._bar.add_task(self._unit, total=total, completed=done, text="")
            self._bar.start()

    def move(self, steps: int, text: str | None = None, more: str = "") -> None:
        """Moves the bar.

        Args:
            steps: how far.
            text: to be shown beside it; None leaves it, and prints no line.
            more: what only a plain line has after the text.
        """
        self._done += steps
        if self._bar is not None:
            self._bar.update(self._task, advance=steps, **({} if text is None else {"text": text}))
        elif text is not None and time.monotonic() - self._printed >= PLAIN_SECONDS:
            self._printed = time.monotonic()
            of = "" if self._total is None else f" of {self._total:,}"
            self.note(f"{self._done:,}{of} {self._unit}, {text}{more}")


class ExtractionDisplay(LiveDisplay):
    """Traces and tokens per second, failures, and the time left.

    Args:
        console: where to write.
    """

    def __init__(self, console: Console) -> None:
        super().__init__(console, "answers")
        self._began = time.monotonic()
        self._traces = self._tokens = self._failures = self._answers = 0

    def begin(self, total: int | None, done: int) -> None:
        """Starts the clock and the bar."""
        super().begin(total, done)
        self._began = time.monotonic()

    def skip(self, answers: int) -> None:
        """Moves the bar; the rates do not change."""
        self.move(answers)

    def advance(self, traces: int, tokens: int, failures: int, answers: int) -> None:
        """Moves the bar by the answers of a batch."""
        self._traces += traces
        self._tokens += tokens
        self._failures += failures
        self._answers += answers
        seconds = max(time.monotonic() - self._began, 1e-9)
        rates = f"{self._traces / seconds:.1f} traces/s, {self._tokens / seconds:.0f} tokens/s"
        if self._failures:
            rates += f", {self._failures} failed"
        self.move(answers, rates, self._time_left(self._done + answers, seconds))

    def _time_left(self, done: int, seconds: float) -> str:
        if self._total is None or not self._answers:
            return ""
        # A source may turn out longer than it said.
        left = int(seconds * max(0, self._total - done) / self._answers)
        return f", {left // 3600}:{left // 60 % 60:02}:{left % 60:02} left"


class FitsDisplay(LiveDisplay):
    """The fits of an evaluation, and how those that are running go.

    Args:
        console: where to write.
    """

    def __init__(self, console: Console) -> None:
        super().__init__(console, "fits")
        self._running: dict[str, str] = {}

    def begin(self, total: int | None, done: int) -> None:
        """Starts the bar, and says how many fits were done before."""
        if done:
            self.note(f"{done:,} of {total:,} fits were there already.")
        super().begin(total, done)

    def start(self, job: str) -> None:
        """Shows what is being fitted."""
        self._running[job] = ""
        self._move(0)

    def epoch(self, job: str, number: int, loss: float, validation_auroc: float) -> None:
        """Shows how a fit goes."""
        if job in self._running:
            self._running[job] = (
                f": epoch {number}, loss {loss:.4f}, validation AUROC {validation_auroc:.4f}"
            )
            self._move(0)

    def end(self, job: str, seconds: float, failure: str | None) -> None:
        """Moves the bar, and prints a line for a failure."""
        self._running.pop(job, None)
        if failure is not None:
            self.note(f"{cell(job)} failed: {cell(failure, 1000)}")
        self._move(1, f"; the last {cell(job)} ({seconds:.1f} s)")

    def _move(self, steps: int, more: str = "") -> None:
        running = "; ".join(cell(job) + how for job, how in self._running.items())
        self.move(steps, f"running: {running}" if running else "", more)


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
        TextColumn("{task.fields[text]}", markup=False),
        TimeRemainingColumn(),
        console=console,
        transient=True,
    )
