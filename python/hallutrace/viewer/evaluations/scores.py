"""The scores of an evaluation in the order of the run's traces."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from hallutrace.errors import InputError
from hallutrace.escaping import cell
from hallutrace.option_names import parameter
from hallutrace.viewer.viewed_run import NO_LABEL, ViewedRun


@dataclass(frozen=True)
class EvaluationScores:
    """Scores of the traces of a run, in the order of the run.

    Attributes:
        labels: int8 [traces], those that the evaluation used: 1 hallucinated, 0 right, -1 where it
            left a trace out.
        folds: int64 [traces], the fold whose test part has the trace; -1 where none has.
        series: by label of the detector, float64 [seeds, traces]; NaN where none was given.
    """

    labels: NDArray[np.int8]
    folds: NDArray[np.int64]
    series: dict[str, NDArray[np.float64]]

    def means(self) -> dict[str, NDArray[np.float64]]:
        """Mean over the seeds by label of the detector, float64 [traces]."""
        return {label: rows.mean(axis=0) for label, rows in self.series.items()}


@lru_cache(maxsize=4)
def evaluation_scores(viewed: ViewedRun) -> EvaluationScores:
    """The scores of the evaluation that is shown, put together once for each viewed run.

    Args:
        viewed: the run, with its evaluation.

    Raises:
        NotInRunError: no evaluation is shown.
        InputError: the evaluation is of another run.
        DamagedError: the evaluation is damaged.

    Examples:
        >>> evaluation_scores(ViewedRun(hallutrace.open(run)))
        Traceback (most recent call last):
            ...
        hallutrace.errors.NotInRunError: No evaluation is shown: ...
    """
    files = viewed.evaluation_files
    tested, fingerprint = files.content.run, viewed.store.manifest.fingerprint
    if tested.fingerprint != fingerprint:
        raise InputError(
            f"Expected an evaluation of the run {viewed.store.folder} (fingerprint "
            f"{fingerprint}), got one of {cell(tested.name)!r} ({cell(tested.fingerprint)}) in "
            f"{files.folder} - give another {parameter('evaluation')}"
        )
    table = files.scores
    places = table.places(viewed.store.keys())
    if (missing := len(table.keys) - int((places >= 0).sum())) > 0:
        raise InputError(
            f"Expected scores of traces of {viewed.store.folder}, got {missing} of other traces in "
            f"{files.folder} - give the evaluation of this run"
        )
    known = places >= 0
    return EvaluationScores(
        np.where(known, table.labels[places], NO_LABEL).astype(np.int8),
        np.where(known, table.folds[places], -1).astype(np.int64),
        {label: np.where(known, rows[:, places], np.nan) for label, rows in table.series.items()},
    )
