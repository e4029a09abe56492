"""How far evaluations are that are running: the files of fits that are there, of those planned."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path

from hallutrace.detect.evaluation.fit_cache import PLAN
from hallutrace.viewer.evaluations.files import EVALUATION_FILE

FITS = "fits"


@dataclass(frozen=True)
class FitProgress:
    """An evaluation that is not finished.

    Attributes:
        folder: that it lies in.
        rows: label of a row, fits that are there, and fits that it needs; in the table's order.
        idle_seconds: since the last fit was written, or since it began.
    """

    folder: Path
    rows: tuple[tuple[str, int, int], ...]
    idle_seconds: float

    @property
    def done(self) -> int:
        """Fits that are there."""
        return sum(done for _, done, _ in self.rows)

    @property
    def total(self) -> int:
        """Fits that the table needs."""
        return sum(total for _, _, total in self.rows)


def fit_progress(folder: Path, fingerprint: str) -> FitProgress | None:
    """How far an evaluation is.

    Args:
        folder: of the evaluation.
        fingerprint: of the run whose evaluations are wanted.

    Returns:
        None if it is finished, of another run, or no evaluation that could be followed.

    Examples:
        >>> fit_progress(folder, "0") is None
        True
    """
    try:
        plan = json.loads((folder / FITS / PLAN).read_bytes())
        began, found = float(plan["began"]), set(plan["found"])
        rows: dict[str, list[str]] = plan["rows"]
        if plan["run"]["fingerprint"] != fingerprint or _is_finished(folder, began):
            return None
        times = {
            one.name: one.stat().st_mtime
            for one in (folder / FITS).iterdir()
            if one.suffix == ".json"
        }
        written = {name for name, at in times.items() if at >= began - 1 or name in found}
        counts = tuple((label, len(written & set(names)), len(names))
                       for label, names in rows.items())  # fmt: skip
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None  # no plan, or one that is damaged: an evaluation writes it anew
    latest = max([began, *(times[name] for name in written)])
    return FitProgress(folder, counts, max(0.0, time.time() - latest))


def _is_finished(folder: Path, began: float) -> bool:
    """Whether the table was written after the fits were begun."""
    try:
        return (folder / EVALUATION_FILE).stat().st_mtime >= began
    except FileNotFoundError:
        return False
