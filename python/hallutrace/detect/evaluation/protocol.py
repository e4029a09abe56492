"""The evaluation protocol: the same traces, splits and seeds for every detector, controls beside.

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

from hallutrace.detect.evaluation.bench import Failed
from hallutrace.detect.evaluation.comparison import Comparison, Scored, comparison
from hallutrace.detect.evaluation.material import Material
from hallutrace.detect.evaluation.outcomes import Outcome, Outcomes
from hallutrace.detect.evaluation.plan import Job, Plan, Row, jobs
from hallutrace.detect.evaluation.runner import Observer, Unheard, run_all
from hallutrace.detect.registry import make
from hallutrace.errors import DamagedError, HallutraceError, InputError, StorageError
from hallutrace.package_versions import versions_of

PACKAGES = ("hallutrace", "numpy", "scikit-learn", "scipy", "torch", "torch_geometric")
"""Whose versions an outcome depends on."""


@dataclass(frozen=True)
class Timing:
    """What a row took.

    Attributes:
        fits: how many.
        fit_seconds: of a fit, mean; features that a fold computed first are in it.
        trace_ms: to score a trace, median over the fits, features included.
    """

    fits: int
    fit_seconds: float
    trace_ms: float


@dataclass(frozen=True)
class Evaluation:
    """A finished evaluation.

    Attributes:
        plan: what was asked.
        material: the traces and their parts.
        scored: by label of the row.
        missing: why a row cannot be evaluated on these traces, by its label.
        failed: why a row's fit ended, by its label; the others go on.
        comparison: metrics and tests.
        timing: by label of the row.
        versions: of the packages that the figures depend on.
    """

    plan: Plan
    material: Material
    scored: dict[str, Scored]
    missing: dict[str, str]
    failed: dict[str, Failed]
    comparison: Comparison
    timing: dict[str, Timing]
    versions: dict[str, str | None]


def inapplicable(rows: Sequence[Row], material: Material) -> dict[str, str]:
    """What rows cannot be, by label, and why: found before any work.

    Raises:
        HallutraceError: the same of a detector that was asked for by name.
        DamagedError: a run that cannot be trusted.
        StorageError: a run that cannot be read.
    """
    missing: dict[str, str] = {}
    stores = [material.learn.store, *([material.test.store] if material.is_transfer else [])]
    for row in rows:
        try:
            for store in stores:
                make(row.name, **row.options).check(store)
        except (DamagedError, StorageError):
            raise
        except Exception as error:
            if row.is_asked and isinstance(error, HallutraceError):
                raise
            missing[row.label] = Failed.of(error).reason
    if len(missing) == len(rows):
        raise InputError(
            f"Expected a detector that can be evaluated, got none of {len(rows)}: "
            f"{next(iter(missing.values()))}"
        )
    return missing


def evaluate(
    material: Material,
    plan: Plan,
    folder: Path,
    *,
    processes: int = 1,
    observer: Observer | None = None,
) -> Evaluation:
    """Fits and scores every detector on every fold, and compares them.

    Args:
        material: the traces and their parts.
        plan: detectors, seeds and bootstrap; its number of folds is that of the material.
        folder: where outcomes of fits are kept as they come, and found again after a kill.
        processes: how many fits go on at once. They are processes that import the caller's main
            module again: a script that gives more than 1 needs ``if __name__ == "__main__":``.
        observer: told how it goes.

    Returns:
        Everything that a report needs.

    Raises:
        InputError: a detector asked for by name that cannot be evaluated on these traces. One that
            fails while it is fitted or scores is a row of its own, in ``failed``.
        DamagedError: a run that cannot be trusted.
        StorageError: a disk that refuses.
    """
    observer = observer or Unheard()
    missing = inapplicable(plan.rows, material)
    rows = [row for row in plan.rows if row.label not in missing]
    versions = package_versions()
    kept = Outcomes(folder, material, versions)
    wanted = jobs(plan, rows, len(material.parts))
    outcomes = {
        (job.row.label, job.fold, job.seed): found
        for job in wanted
        if (found := kept.find(job)) is not None
    }
    todo = [job for job in wanted if (job.row.label, job.fold, job.seed) not in outcomes]
    observer.begin(len(wanted), len(wanted) - len(todo))

    def keep(job: Job, outcome: Outcome) -> None:
        kept.keep(job, outcome)
        outcomes[job.row.label, job.fold, job.seed] = outcome

    failed = run_all(material, todo, processes, keep, observer)
    scored: dict[str, Scored] = {}
    timing: dict[str, Timing] = {}
    for row in rows:
        if row.label in failed:
            continue
        of_row = {key[1:]: found for key, found in outcomes.items() if key[0] == row.label}
        scored[row.label] = Scored.of(plan.series(row, len(material.parts)), of_row, material)
        timing[row.label] = _timing(list(of_row.values()))
    figures = comparison(plan.rows, scored, material, plan)
    return Evaluation(plan, material, scored, missing, failed, figures, timing, versions)


def package_versions() -> dict[str, str | None]:
    """Of the packages that what is learnt depends on, and of Python; None where one is missing."""
    return versions_of(*PACKAGES)


def _timing(outcomes: Sequence[Outcome]) -> Timing:
    seconds = [one.fit_seconds for one in outcomes]
    return Timing(
        len(outcomes), sum(seconds) / len(seconds), median(one.trace_ms for one in outcomes)
    )
