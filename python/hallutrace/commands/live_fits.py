"""What `hallutrace evaluate` says while it works."""

from __future__ import annotations

import time
from typing import Any

from hallutrace.commands.live import PLAIN_SECONDS
from hallutrace.commands.text import ERR, cell


class LiveFits:
    """A bar of fits, with what is being fitted; plain lines when not a terminal."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._task: Any = None
        self._now: dict[str, str] = {}
        self._total = self._done = 0
        self._said = time.monotonic()

    def __enter__(self) -> LiveFits:
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def begin(self, total: int, done: int) -> None:
        """Starts the bar on a terminal."""
        self._total, self._done = total, done
        if done:
            ERR.print(f"{done:,} of {total:,} fits were there already.")
        if ERR.is_terminal:
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
            from rich.progress import TimeElapsedColumn as Elapsed

            self._bar = Progress(
                TextColumn("fits", markup=False),
                BarColumn(),
                MofNCompleteColumn(),
                Elapsed(),
                TextColumn("{task.fields[now]}", markup=False),
                console=ERR,
                transient=True,
            )
            self._task = self._bar.add_task("fits", total=total, completed=done, now="")
            self._bar.start()

    def start(self, job: str) -> None:
        """Shows what is being fitted."""
        self._now[job] = ""
        self._show()

    def epoch(self, job: str, number: int, loss: float, validation_auroc: float) -> None:
        """Shows how the fit goes."""
        if job in self._now:
            self._now[job] = (
                f": epoch {number}, loss {loss:.4f}, validation AUROC {validation_auroc:.4f}"
            )
            self._show()

    def end(self, job: str, seconds: float, failure: str | None) -> None:
        """Moves the bar; a plain line at most every ten seconds, and for each failure."""
        self._now.pop(job, None)
        self._done += 1
        if self._bar is not None:
            self._bar.update(self._task, advance=1)
            self._show()
        if failure is not None:
            ERR.print(f"{cell(job)} failed: {cell(failure, 1000)}")
        elif self._bar is None and time.monotonic() - self._said >= PLAIN_SECONDS:
            self._say(
                f"{self._done:,} of {self._total:,} fits, the last {cell(job)} ({seconds:.1f} s)"
            )

    def _show(self) -> None:
        if self._bar is not None:
            now = "; ".join(cell(job) + how for job, how in self._now.items())
            self._bar.update(self._task, now=now)
        elif time.monotonic() - self._said >= PLAIN_SECONDS:
            now = "; ".join(cell(job) + how for job, how in self._now.items())
            self._say(f"{self._done:,} of {self._total:,} fits; {now}")

    def _say(self, text: str) -> None:
        self._said = time.monotonic()
        ERR.print(text)
