"""The evaluation protocol: the same traces, splits and seeds for every detector and control.

1. Splits by group, stratified: each trace is in one test part; validation is a fifth of the rest.
2. Everything fitted sees the training part; choices (epochs, layers, penalties, the curve that
   calibrates) see the validation part, and linear detectors with few answers of a class there also
   inner folds of both; the test part is scored once.
3. Metrics by fold, mean over folds and seeds, with bootstrap intervals over groups and seeds.
4. Paired tests on the same draws, corrected for their number.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from hallutrace.detect.evaluation.comparison import Comparison, RowScores, compare_rows
from hallutrace.detect.evaluation.data import EvaluationData
from hallutrace.detect.evaluation.fit_cache import FitCache, FitResult
from hallutrace.detect.evaluation.fitting import FitFailure
from hallutrace.detect.evaluation.options import EvaluationOptions, Fit
from hallutrace.detect.evaluation.processes import EvaluationProgress, FitRunner, SilentProgress
from hallutrace.detect.evaluation.rows import TableRow
from hallutrace.detect.registry import make
from hallutrace.errors import DamagedError, HallutraceError, InputError, StorageError
from hallutrace.notebook_display import ShownInNotebooks
from hallutrace.package_versions import versions_of

PACKAGES = ("hallutrace", "numpy", "scikit-learn", "scipy", "torch", "torch_geometric")
"""The packages on whose versions a result depends."""


@dataclass(frozen=True)
class Timing:
    """How long the fits of a row took.

    Attributes:
        fits: number of fits.
        fit_seconds: of a fit, mean; features that a fold computed first are in it.
        trace_ms: to score a trace, median over the fits, features included.
    """

    fits: int
    fit_seconds: float
    trace_ms: float

    @classmethod
    def of(cls, results: Sequence[FitResult]) -> Timing:
        """Timing of some fits."""
        seconds = [one.fit_seconds for one in results]
        milliseconds = median(one.trace_ms for one in results)
        return cls(len(results), sum(seconds) / len(seconds), milliseconds)


@dataclass(frozen=True)
class Evaluation(ShownInNotebooks):
    """A finished evaluation.

    Attributes:
        options: what was asked for.
        data: the traces and their splits.
        scores: by label of the row.
        missing: why a row cannot be evaluated on these traces, by its label.
        failed: why a row's fit ended, by its label; the others go on.
        comparison: metrics and tests.
        timing: by label of the row.
        versions: of the packages that the figures depend on.
    """

    options: EvaluationOptions
    data: EvaluationData
    scores: dict[str, RowScores]
    missing: dict[str, str]
    failed: dict[str, FitFailure]
    comparison: Comparison
    timing: dict[str, Timing]
    versions: dict[str, str | None]


def inapplicable(rows: Sequence[TableRow], data: EvaluationData) -> dict[str, str]:
    """Why some rows cannot be evaluated, by label; found before any work.

    Raises:
        HallutraceError: the same of a detector that the user named.
        DamagedError: a run that cannot be trusted.
        StorageError: a run that cannot be read.
    """
    missing: dict[str, str] = {}
    stores = [data.train_run.store, *([data.test_run.store] if data.is_transfer else [])]
    for row in rows:
        try:
            for store in stores:
                make(row.name, **row.options).check(store)
        except (DamagedError, StorageError):
            raise
        except Exception as error:
            if row.is_requested and isinstance(error, HallutraceError):
                raise
            missing[row.label] = FitFailure.of(error).reason
    if len(missing) == len(rows):
        raise InputError(
            f"Expected a detector that can be evaluated, got none of {len(rows)}: "
            f"{next(iter(missing.values()))}"
        )
    return missing


def evaluate(
    data: EvaluationData,
    options: EvaluationOptions,
    folder: Path,
    *,
    processes: int = 1,
    progress: EvaluationProgress | None = None,
) -> Evaluation:
    """Fits and scores every detector on every fold, and compares them.

    Args:
        data: the traces and their splits.
        options: detectors, seeds and bootstrap; the number of folds is that of the data.
        folder: where results of fits are kept as they come, and found again after a kill.
        processes: how many fits go on at once. They are processes that import the caller's main
            module again: a script that gives more than 1 needs ``if __name__ == "__main__":``.
        progress: told of fits.

    Returns:
        Everything that a report needs.

    Raises:
        InputError: a detector that the user named cannot be evaluated on these traces. One that
            fails while it is fitted or scores is a row of its own, in ``failed``.
        DamagedError: a run that cannot be trusted.
        StorageError: the disk refused.
    """
    progress = progress or SilentProgress()
    missing = inapplicable(options.rows, data)
    rows = [row for row in options.rows if row.label not in missing]
    versions = package_versions()
    cache = FitCache(folder, data, versions)
    fits = options.fits(rows, len(data.splits))
    results = {fit.key: result for fit in fits if (result := cache.find(fit)) is not None}
    cache.announce(fits, [fit for fit in fits if fit.key in results])
    progress.begin(len(fits), len(results))

    def keep(fit: Fit, result: FitResult) -> None:
        cache.keep(fit, result)
        results[fit.key] = result

    runner = FitRunner(data, keep, progress)
    runner.run([fit for fit in fits if fit.key not in results], processes)
    scores: dict[str, RowScores] = {}
    timing: dict[str, Timing] = {}
    for row in rows:
        if row.label in runner.failed:
            continue
        of_row = {key[1:]: result for key, result in results.items() if key[0] == row.label}
        scores[row.label] = RowScores.of(options.series(row, len(data.splits)), of_row, data)
        timing[row.label] = Timing.of(list(of_row.values()))
    comparison = compare_rows(options, scores, data)
    return Evaluation(options, data, scores, missing, runner.failed, comparison, timing, versions)


def package_versions() -> dict[str, str | None]:
    """Versions of :data:`PACKAGES` and of Python; None where one is missing."""
    return versions_of(*PACKAGES)
