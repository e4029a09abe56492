"""Detectors that learn nothing."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from hallutrace.detect.base import Detector, Progress
from hallutrace.detect.examples import Examples


class Scorer(Detector):
    """A formula over one trace: there is nothing to fit, and nothing to save but its options."""

    trained: ClassVar[bool] = False

    def fit(
        self,
        train: Examples,
        validation: Examples,
        *,
        progress: Progress | None = None,
        workspace: Path | None = None,
    ) -> None:
        """Does nothing."""
