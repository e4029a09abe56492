"""What a page reads of ``evaluation.json``, as checked types."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from hallutrace.errors import NotInRunError
from hallutrace.escaping import cell

SlopeAndIntercept = Annotated[list[float], Field(min_length=2, max_length=2)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True, frozen=True)


class Interval(_Part):
    """A figure and where it lies."""

    value: float
    low: float
    high: float


class PairTest(Interval):
    """AUROC of one row less that of another, with its interval and p, corrected in its family."""

    one: str
    other: str
    p: float
    p_corrected: float


class Timing(_Part):
    """Duration of a fit, and of scoring a trace."""

    fits: int
    fit_seconds: float
    trace_ms: float


class Row(_Part):
    """One detector of the table.

    Attributes:
        label: name and options, as the table has them.
        status: ``done``; ``missing`` (it needs what the run does not have) or ``failed``.
        reason: why it has no figures.
        seeds: of each fold, for each series of scores; [series][folds].
        calibration: slope and intercept of the curve that makes scores probabilities;
            [series][folds][2]. None in evaluations that did not write it.
    """

    label: str
    name: str
    options: dict[str, Any]
    is_control: bool
    edges_control_of: str | None
    status: Literal["done", "missing", "failed"]
    reason: str | None = None
    auroc: Interval | None = None
    auprc: Interval | None = None
    tpr5: Interval | None = None
    tpr10: Interval | None = None
    ece: float | None = None
    auroc_by_fold: list[list[float]] = []
    seeds: list[list[int]] = []
    calibration: list[list[SlopeAndIntercept]] | None = None

    @property
    def reached(self) -> float:
        """AUROC; 0 without figures."""
        return 0.0 if self.auroc is None else self.auroc.value

    @property
    def columns(self) -> list[str]:
        """Names of its columns in ``scores.csv``, one for each series.

        Examples:
            >>> Row(label="x", name="x", options={}, is_control=False, edges_control_of=None,
            ...     status="done", seeds=[[0, 0], [1, 1]]).columns
            ['x seed=0', 'x seed=1']
        """
        if len(self.seeds) < 2:
            return [self.label]
        return [f"{self.label} seed={folds[0]}" for folds in self.seeds]


class _Label(_Part):
    name: str


class _Counts(_Part):
    traces: int
    groups: int
    hallucinated: int
    right: int


class TestedRun(_Part):
    """The run whose traces were scored."""

    name: str
    fingerprint: str
    traces: str
    label: _Label
    counts: _Counts
    base_rate: float


class _Bootstrap(_Part):
    draws: int
    level: float


class Protocol(_Part):
    """How it was evaluated."""

    folds: int
    seeds: int
    seeds_on: str
    shuffle_labels: int | None
    bootstrap: _Bootstrap


class EvaluationContent(_Part):
    """What a page reads of ``evaluation.json``; the file holds more."""

    run: TestedRun
    trained_on: TestedRun | None
    protocol: Protocol
    best_control: str | None
    detectors: list[Row]
    against_control: list[PairTest]
    against_edges: list[PairTest]
    pairs: list[PairTest]
    timing: dict[str, Timing]

    @property
    def done(self) -> list[Row]:
        """Rows with figures."""
        return [row for row in self.detectors if row.status == "done"]

    def row(self, label: str) -> Row:
        """The row of this label, if it has figures.

        Raises:
            NotInRunError: no such row, or one without figures; the message has its reason.
        """
        found = next((row for row in self.detectors if row.label == label), None)
        if found is not None and found.status == "done":
            return found
        if found is not None:
            raise NotInRunError(f"{label} has no scores ({found.status}): {found.reason}")
        names = ", ".join(row.label for row in self.done)
        raise NotInRunError(f"Expected one of the detectors {names}, got {label[:80]!r}")


def check_rows(content: EvaluationContent) -> None:
    """Refuses rows that do not hold what their status says.

    Raises:
        ValueError: saying which.
    """
    labels = [row.label for row in content.detectors]
    if len(set(labels)) < len(labels):
        raise ValueError("a row twice in `detectors`")
    folds = content.protocol.folds
    for row in content.done:
        if None in (row.auroc, row.auprc, row.tpr5, row.tpr10, row.ece) or not row.seeds:
            raise ValueError(f"no figures of {cell(row.label)} in `detectors`")
        if row.label not in content.timing:
            raise ValueError(f"no `timing` of {cell(row.label)}")
        curves = row.calibration or []
        if {*map(len, row.seeds), *map(len, curves)} != {folds}:
            raise ValueError(f"not {folds} folds of {cell(row.label)} in `detectors`")
        if row.calibration is not None and len(row.calibration) != len(row.seeds):
            raise ValueError(f"not a curve for each series of {cell(row.label)}")
