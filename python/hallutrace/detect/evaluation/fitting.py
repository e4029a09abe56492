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
from hallutrace.detect.evaluation.data import EvaluationData
from hallutrace.detect.evaluation.fit_cache import FitResult
from hallutrace.detect.evaluation.options import Fit
from hallutrace.detect.examples import Examples, FeatureCache
from hallutrace.detect.registry import find, make
from hallutrace.errors import DamagedError, HallutraceError, StorageError

TIMED_TRACES = 64


@dataclass(frozen=True)
class FitFailure:
    """A fit that ended with an error; its row has no figures.

    Attributes:
        reason: message of an error of hallutrace; type and message of any other.
        traceback: where it was raised; None where its process was killed.
    """

    reason: str
    traceback: str | None = None

    @classmethod
    def of(cls, error: BaseException) -> FitFailure:
        """The failure that an error is."""
        text = "".join(traceback.format_exception(error)).strip()
        if isinstance(error, HallutraceError):
            return cls(str(error), text)
        said = str(error).strip().splitlines()
        return cls(": ".join([type(error).__name__, *said[:1]]), text)


class Stopped(Exception):  # noqa: N818 - no error: nobody waits for this fit any more
    """Ends a fit in a worker process between two epochs."""


@dataclass
class FitProgress:
    """Counts the epochs and keeps the notes of one fit; passes epochs on."""

    on_epoch: Callable[[int, float, float], None]
    epochs: int = 0
    notes: list[str] = field(default_factory=list)

    def epoch(self, number: int, loss: float, validation_auroc: float, seconds: float) -> None:
        """Counts it, and passes it on."""
        self.epochs += 1
        self.on_epoch(number, loss, validation_auroc)

    def note(self, text: str) -> None:
        """Keeps it."""
        self.notes.append(text)


class Fitter:
    """Fits detectors; features are cached as long as the detector stays the same."""

    def __init__(self, data: EvaluationData) -> None:
        self._data = data
        self._cached: str | None = None

    def run(
        self, fit: Fit, on_epoch: Callable[[int, float, float], None]
    ) -> FitResult | FitFailure:
        """Fits and scores one fold; whatever a detector raises is a failure of its row.

        Args:
            fit: detector, fold and seed.
            on_epoch: called after each epoch with its number, loss and validation AUROC.

        Raises:
            DamagedError: a run that cannot be trusted.
            StorageError: a run that cannot be read.
            Stopped: nobody waits for this fit any more.
            KeyboardInterrupt: the caller wants it to end.
        """
        if fit.row.name != self._cached:
            self._data, self._cached = self._data.with_fresh_caches(), fit.row.name
        try:
            with one_thread(fit.row.name):
                return self._result(fit, FitProgress(on_epoch))
        except (DamagedError, StorageError, Stopped, KeyboardInterrupt):
            raise
        # Extensions raise panics that are no `Exception`, and `sys.exit` must not end a table.
        except BaseException as error:
            return FitFailure.of(error)

    def _result(self, fit: Fit, progress: FitProgress) -> FitResult:
        data, split = self._data, self._data.splits[fit.fold]
        validation, test = data.train_run.take(split.validation), data.test_run.take(split.test)
        detector = make(fit.row.name, seed=fit.seed, **fit.row.options)
        begin = time.perf_counter()
        detector.fit(data.train_run.take(split.train), validation, progress=progress)
        end = time.perf_counter()
        return FitResult(
            test=tuple(detector.finite_scores(test).tolist()),
            validation=tuple(detector.finite_scores(validation).tolist()),
            epochs=progress.epochs,
            notes=tuple(progress.notes),
            fit_seconds=end - begin,
            trace_ms=1000 * _trace_seconds(detector, test[:TIMED_TRACES]),
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
        begin = time.perf_counter()
        detector.scores(fresh)
        taken = time.perf_counter() - begin
    return taken / len(sample)
