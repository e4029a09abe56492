"""One fit: a detector on one fold with one seed, in one thread.

However many cores there are, a fit has one thread: its numbers then do not depend on the machine's
load or on how many fits go on at once, and small models gain nothing from threads.
"""

from __future__ import annotations

import importlib
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from hallutrace.detect.base import Detector
from hallutrace.detect.evaluation.material import Material
from hallutrace.detect.evaluation.outcomes import Outcome
from hallutrace.detect.evaluation.plan import Job
from hallutrace.detect.examples import Examples, FeatureCache
from hallutrace.detect.registry import find, make
from hallutrace.errors import DamagedError, HallutraceError, StorageError

TIMED_TRACES = 64


@dataclass(frozen=True)
class Failed:
    """A fit that ended with an error; its row has no figures.

    Attributes:
        reason: an error of hallutrace as it reads, of any other its type and message.
        traceback: where it was raised; None where its process was killed.
    """

    reason: str
    traceback: str | None = None

    @classmethod
    def of(cls, error: BaseException) -> Failed:
        """What an error says."""
        text = "".join(traceback.format_exception(error)).strip()
        if isinstance(error, HallutraceError):
            return cls(str(error), text)
        said = str(error).strip().splitlines()
        return cls(": ".join([type(error).__name__, *said[:1]]), text)


class Stopped(Exception):  # noqa: N818 - no error: nobody waits for this fit any more
    """Ends a fit in a worker process between two epochs."""


@dataclass
class Listener:
    """What a detector tells while it is fitted; epochs are passed on."""

    tell: Callable[[int, float, float], None]
    epochs: int = 0
    notes: list[str] = field(default_factory=list)

    def epoch(self, number: int, loss: float, validation_auroc: float, seconds: float) -> None:
        """Counts it, and passes it on."""
        self.epochs += 1
        self.tell(number, loss, validation_auroc)

    def note(self, text: str) -> None:
        """Keeps it."""
        self.notes.append(text)


class Bench:
    """Where fits are made; features are cached as long as the detector stays the same."""

    def __init__(self, material: Material) -> None:
        self._material = material
        self._of: str | None = None

    def run(self, job: Job, tell: Callable[[int, float, float], None]) -> Outcome | Failed:
        """Fits and scores one fold; whatever a detector raises is a failure of its row.

        Raises:
            DamagedError: a run that cannot be trusted.
            StorageError: a run that cannot be read.
            Stopped: nobody waits for this fit any more.
            KeyboardInterrupt: the caller wants it to end.
        """
        if job.row.name != self._of:
            self._material, self._of = self._material.with_fresh_caches(), job.row.name
        try:
            with one_thread(job.row.name):
                return self._fitted(job, Listener(tell))
        except (DamagedError, StorageError, Stopped, KeyboardInterrupt):
            raise
        # Extensions raise panics that are no `Exception`, and `sys.exit` must not end a table.
        except BaseException as error:
            return Failed.of(error)

    def _fitted(self, job: Job, listener: Listener) -> Outcome:
        material = self._material
        part = material.parts[job.fold]
        validation, test = material.learn.take(part.validation), material.test.take(part.test)
        detector = make(job.row.name, seed=job.seed, **job.row.options)
        began = time.perf_counter()
        detector.fit(material.learn.take(part.train), validation, progress=listener)
        fitted = time.perf_counter()
        scores, held = detector.finite_scores(test), detector.finite_scores(validation)
        taken = _trace_seconds(detector, material.test.take(part.test[:TIMED_TRACES]))
        return Outcome(
            test=tuple(scores.tolist()),
            validation=tuple(held.tolist()),
            epochs=listener.epochs,
            notes=tuple(listener.notes),
            fit_seconds=fitted - began,
            trace_ms=1000 * taken,
        )


@contextmanager
def one_thread(name: str) -> Iterator[None]:
    """Holds BLAS, and torch where the detector of this name needs it, to one thread."""
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    if {"torch", "torch_geometric"} & set(find(name).packages):
        importlib.import_module("torch")
    torch = sys.modules.get("torch")
    before = torch.get_num_threads() if torch else 1
    with threadpool_limits(1):
        if torch:
            torch.set_num_threads(1)
        try:
            yield
        finally:
            if torch:
                torch.set_num_threads(before)


def _trace_seconds(detector: Detector, sample: Examples) -> float:
    """Time to score a trace whose bytes are in memory, and checked; its features are not."""
    taken = 0.0
    for _ in range(2):
        fresh = replace(sample, cache=FeatureCache())
        began = time.perf_counter()
        detector.scores(fresh)
        taken = time.perf_counter() - began
    return taken / len(sample)
