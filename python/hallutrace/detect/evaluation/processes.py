"""Runs the fits of a table, one after the other or in several processes."""

from __future__ import annotations

import multiprocessing
import os
import queue
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from hallutrace.detect.evaluation.data import EvaluationData
from hallutrace.detect.evaluation.fit_cache import FitResult
from hallutrace.detect.evaluation.fitting import FitFailure, Fitter, Stopped
from hallutrace.detect.evaluation.options import Fit
from hallutrace.detect.registry import REGISTRY
from hallutrace.option_names import name_options, names_options
from hallutrace.plugins import Registered

_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
_POLL_SECONDS = 0.2  # between two looks at the messages of workers


KILLED = "its process was killed, also when it was the only one (out of memory?)"


class EvaluationProgress(Protocol):
    """Told of an evaluation as it goes on."""

    def begin(self, total: int, done: int) -> None:
        """The fits of all rows, and those that an earlier evaluation left."""

    def start(self, fit: str) -> None:
        """A fit begins."""

    def epoch(self, fit: str, number: int, loss: float, validation_auroc: float) -> None:
        """An epoch of a fit is done."""

    def end(self, fit: str, seconds: float, failure: str | None) -> None:
        """A fit is done, or failed with a reason."""


class SilentProgress:
    """Says nothing."""

    def _ignore(self, *_: object, **__: object) -> None:
        pass

    begin = start = epoch = end = _ignore


class FitRunner:
    """Runs fits; a row of which one failed is given up.

    Args:
        data: the traces.
        keep: takes each result.
        progress: told of each fit.

    Attributes:
        failed: failures by label of the row: whatever a detector raises, or a process that was
            killed.
    """

    def __init__(
        self,
        data: EvaluationData,
        keep: Callable[[Fit, FitResult], None],
        progress: EvaluationProgress,
    ) -> None:
        self._data, self._keep, self._progress = data, keep, progress
        self.failed: dict[str, FitFailure] = {}

    def run(self, fits: Sequence[Fit], processes: int) -> None:
        """Runs fits, in this process if ``processes`` is 1 and all detectors are built in.

        A pool does not tell which of its processes was killed. So each fit that was in progress is
        tried again in a process of its own, one after the other: one whose process is killed again
        fails its row, and one that only had too little memory beside the others succeeds.

        Args:
            fits: in order.
            processes: how many fits go on at once.

        Raises:
            DamagedError: a run that cannot be trusted.
            StorageError: the disk refused.
        """
        if processes == 1 and not any(map(_is_foreign, fits)):
            self._run_here(fits)
            return
        waiting = list(reversed(fits))
        while waiting:
            for fit in self._run_pool(waiting, processes):
                if fit.row.label not in self.failed and self._run_pool([fit], 1):
                    self._end(fit, FitFailure(KILLED), 0.0)

    def _run_here(self, fits: Sequence[Fit]) -> None:
        fitter = Fitter(self._data)
        for fit in fits:
            if fit.row.label not in self.failed:
                self._progress.start(str(fit))
                begin = time.perf_counter()
                result = fitter.run(fit, partial(self._progress.epoch, str(fit)))
                self._end(fit, result, time.perf_counter() - begin)

    def _run_pool(self, waiting: list[Fit], processes: int) -> list[Fit]:
        """Takes fits from the end of a list until it is empty, or a process is killed.

        Returns:
            The fits that were in progress when one was killed.
        """
        context = multiprocessing.get_context("spawn")
        epochs, stop = context.Queue(), context.Event()
        running: dict[Future[tuple[FitResult | FitFailure, float]], Fit] = {}
        with _single_threaded_children():
            state = _CallerState(Registered.here(), names_options())
            arguments = (self._data.with_fresh_caches(), epochs, stop, state)
            count = min(processes, len(waiting))
            pool = ProcessPoolExecutor(count, context, _begin_worker, arguments)
            try:
                while waiting or running:
                    # Not all are submitted at once: those of a row that fails are left out.
                    while waiting and len(running) < processes:
                        fit = waiting[-1]
                        if fit.row.label not in self.failed:
                            self._progress.start(str(fit))
                            running[pool.submit(_work, fit)] = fit
                        waiting.pop()
                    done, _ = wait(running, timeout=_POLL_SECONDS, return_when=FIRST_COMPLETED)
                    with suppress(queue.Empty):
                        while True:
                            self._progress.epoch(*epochs.get_nowait())
                    for future in done:
                        result, seconds = future.result()
                        self._end(running.pop(future), result, seconds)
                return []
            except BrokenProcessPool:
                return list(running.values())
            finally:
                stop.set()
                pool.shutdown(wait=True, cancel_futures=True)

    def _end(self, fit: Fit, result: FitResult | FitFailure, seconds: float) -> None:
        if isinstance(result, FitFailure):
            self._progress.end(str(fit), seconds, result.reason)
            self.failed.setdefault(fit.row.label, result)
        else:
            self._progress.end(str(fit), seconds, None)
            self._keep(fit, result)


def _is_foreign(fit: Fit) -> bool:
    """Whether a fit runs code of a file or a package, which may end its process."""
    return REGISTRY.origin(fit.row.name).kind in ("file", "package")


@dataclass(frozen=True)
class _Worker:
    fitter: Fitter
    epochs: Any
    stop: Any

    def run(self, fit: Fit) -> FitResult | FitFailure:
        def on_epoch(number: int, loss: float, validation_auroc: float) -> None:
            if self.stop.is_set():
                raise Stopped
            self.epochs.put((str(fit), number, loss, validation_auroc))

        return self.fitter.run(fit, on_epoch)


_worker: _Worker


@dataclass(frozen=True)
class _CallerState:
    """What a worker takes over from the process that starts it."""

    registered: Registered
    names_options: bool


def _begin_worker(data: EvaluationData, epochs: Any, stop: Any, caller: _CallerState) -> None:
    global _worker
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the main process handles it
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    caller.registered.restore()
    name_options(caller.names_options)
    _worker = _Worker(Fitter(data), epochs, stop)


def _exit_with_parent() -> None:
    """Ends a worker whose parent was killed; it would wait for work for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _work(fit: Fit) -> tuple[FitResult | FitFailure, float]:
    begin = time.perf_counter()
    return _worker.run(fit), time.perf_counter() - begin


@contextmanager
def _single_threaded_children() -> Iterator[None]:
    before = {name: os.environ.get(name) for name in _THREADS}
    os.environ.update(dict.fromkeys(_THREADS, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
