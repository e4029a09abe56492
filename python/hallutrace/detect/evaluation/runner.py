"""The fits of a table, one after the other or in several processes."""

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
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from hallutrace.detect.evaluation.bench import Bench, Failed, Stopped
from hallutrace.detect.evaluation.material import Material
from hallutrace.detect.evaluation.outcomes import Outcome
from hallutrace.detect.evaluation.plan import Job

_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
_TICK = 0.2  # seconds between two looks at what workers say


class Observer(Protocol):
    """Told of an evaluation as it goes on."""

    def begin(self, total: int, done: int) -> None:
        """Fits in all, and those that are there already."""

    def start(self, job: str) -> None:
        """A fit begins."""

    def epoch(self, job: str, number: int, loss: float, validation_auroc: float) -> None:
        """An epoch of a fit is done."""

    def end(self, job: str, seconds: float, failure: str | None) -> None:
        """A fit is done, or failed."""


class Unheard:
    """Says nothing."""

    def begin(self, total: int, done: int) -> None:
        """Says nothing."""

    def start(self, job: str) -> None:
        """Says nothing."""

    def epoch(self, job: str, number: int, loss: float, validation_auroc: float) -> None:
        """Says nothing."""

    def end(self, job: str, seconds: float, failure: str | None) -> None:
        """Says nothing."""


End = Callable[[Job, "Outcome | Failed", float], None]
"""Takes what a fit gave, and the seconds that it took."""


def run_all(
    material: Material,
    todo: Sequence[Job],
    processes: int,
    keep: Callable[[Job, Outcome], None],
    observer: Observer,
) -> dict[str, Failed]:
    """Runs fits; a row of which one failed is given up.

    Args:
        material: the traces.
        todo: the fits.
        processes: how many go on at once; 1 runs them here.
        keep: takes each outcome.
        observer: told of each.

    Returns:
        Failures by label of the row: whatever a detector raises, or a process that was killed.

    Raises:
        DamagedError: a run that cannot be trusted.
        StorageError: a disk that refuses.
    """
    failed: dict[str, Failed] = {}

    def end(job: Job, found: Outcome | Failed, seconds: float) -> None:
        observer.end(str(job), seconds, found.reason if isinstance(found, Failed) else None)
        if isinstance(found, Outcome):
            keep(job, found)
        else:
            failed.setdefault(job.row.label, found)

    if processes == 1:
        bench = Bench(material)
        for job in todo:
            if job.row.label not in failed:
                observer.start(str(job))
                began = time.perf_counter()
                found = bench.run(job, lambda *told, job=job: observer.epoch(str(job), *told))
                end(job, found, time.perf_counter() - began)
    elif todo:
        _run_in_processes(material, todo, processes, failed, end, observer)
    return failed


def _run_in_processes(
    material: Material,
    todo: Sequence[Job],
    processes: int,
    failed: dict[str, Failed],
    end: End,
    observer: Observer,
) -> None:
    """Runs fits in a pool; where one of its processes is killed, those that it was fitting alone.

    A pool does not tell which of its processes ended. So each fit that was going on is tried again
    in a process of its own, one after the other: one whose process is killed again fails its row,
    and one that only had too little memory beside the others goes through.
    """
    waiting = list(reversed(todo))
    while waiting:
        for job in _run_pool(material, waiting, processes, failed, end, observer):
            if job.row.label not in failed and _run_pool(material, [job], 1, failed, end, observer):
                end(job, Failed(KILLED), 0.0)


KILLED = "its process was killed, also when it was the only one (out of memory?)"


def _run_pool(
    material: Material,
    waiting: list[Job],
    processes: int,
    failed: dict[str, Failed],
    end: End,
    observer: Observer,
) -> list[Job]:
    """Takes fits from the end of a list until it is empty, or a process is killed.

    Returns:
        The fits that were going on when one was.
    """
    context = multiprocessing.get_context("spawn")
    said, stop = context.Queue(), context.Event()
    running: dict[Future[tuple[Outcome | Failed, float]], Job] = {}
    with _single_threaded_children():
        given = (material.with_fresh_caches(), said, stop)
        pool = ProcessPoolExecutor(min(processes, len(waiting)), context, _begin_worker, given)
        try:
            while waiting or running:
                # Not all are submitted at once: those of a row that fails are left out.
                while waiting and len(running) < processes:
                    job = waiting[-1]
                    if job.row.label not in failed:
                        observer.start(str(job))
                        running[pool.submit(_work, job)] = job
                    waiting.pop()
                done, _ = wait(running, timeout=_TICK, return_when=FIRST_COMPLETED)
                _pass_on(said, observer)
                for future in done:
                    found = future.result()
                    end(running.pop(future), *found)
            return []
        except BrokenProcessPool:
            return list(running.values())
        finally:
            stop.set()
            pool.shutdown(wait=True, cancel_futures=True)


def _pass_on(said: Any, observer: Observer) -> None:
    while True:
        try:
            observer.epoch(*said.get_nowait())
        except queue.Empty:
            return


@dataclass(frozen=True)
class _Worker:
    bench: Bench
    said: Any
    stop: Any

    def run(self, job: Job) -> Outcome | Failed:
        def tell(number: int, loss: float, validation_auroc: float) -> None:
            if self.stop.is_set():
                raise Stopped
            self.said.put((str(job), number, loss, validation_auroc))

        return self.bench.run(job, tell)


_worker: _Worker


def _begin_worker(material: Material, said: Any, stop: Any) -> None:
    global _worker
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the first process hears it, and says so
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _worker = _Worker(Bench(material), said, stop)


def _end_with_parent() -> None:
    """A pool's workers wait for work for ever where their parent was killed."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _work(job: Job) -> tuple[Outcome | Failed, float]:
    began = time.perf_counter()
    return _worker.run(job), time.perf_counter() - began


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
