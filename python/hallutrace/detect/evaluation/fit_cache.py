"""The result of a fit, and a folder where results are kept until their table is finished.

Each result is a file of its own, so a kill loses only the fits that were in progress. A file has
the digest of what it was computed from; one that was computed from anything else is not read.
``plan.json`` has the names of the files that a table needs, for who watches how far it is.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hallutrace import atomic_files
from hallutrace.atomic_files import storage_errors
from hallutrace.canonical_json import canonical, digest
from hallutrace.detect.evaluation.data import EvaluationData
from hallutrace.detect.evaluation.options import Fit
from hallutrace.detect.examples import Examples
from hallutrace.detect.registry import REGISTRY
from hallutrace.option_names import parameter

SCHEMA = 2
PLAN = "plan.json"


@dataclass(frozen=True)
class FitResult:
    """What one fit gave.

    Attributes:
        test: scores of the test part, in its order.
        validation: scores of the validation part, in its order.
        epochs: of its training; 0 where it is not trained in epochs.
        notes: messages of the detector while it was fitted.
        fit_seconds: duration of the fit; features that a fold computed first are in it.
        trace_ms: to score a trace, features included, nothing cached but the pages of the files.
    """

    test: tuple[float, ...]
    validation: tuple[float, ...]
    epochs: int
    notes: tuple[str, ...]
    fit_seconds: float
    trace_ms: float


class FitCache:
    """A folder of results.

    Args:
        folder: made when something is kept.
        data: the traces that results are computed from.
        versions: of the packages that results depend on.
    """

    def __init__(self, folder: Path, data: EvaluationData, versions: dict[str, Any]) -> None:
        self._folder = folder
        self._basis = {
            "schema": SCHEMA,
            "versions": versions,
            "train_run": run_digest(data.train_run),
            "test_run": run_digest(data.test_run),
        }
        self._splits = [index_digest(*vars(split).values()) for split in data.splits]

    def find(self, fit: Fit) -> FitResult | None:
        """A result that was kept; None if there is none, or one of something else."""
        try:
            content = json.loads(self._path(fit).read_bytes())
            if content.pop("basis") != self._digest(fit):
                return None
            for name in ("test", "validation", "notes"):
                content[name] = tuple(content[name])
            return FitResult(**content)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None  # it is computed again

    def keep(self, fit: Fit, result: FitResult) -> None:
        """Writes a result, whole or not at all.

        Raises:
            StorageError: the folder cannot be written.
        """
        path = self._path(fit)
        content = canonical({**asdict(result), "basis": self._digest(fit)})
        with storage_errors(
            f"write {path}", f"choose another {parameter('folder', option='--out')}"
        ):
            atomic_files.write(path, content)

    def announce(self, fits: Sequence[Fit], found: Iterable[Fit]) -> None:
        """Writes which fits there will be, and which of them an earlier evaluation left.

        Args:
            fits: all of the table.
            found: those that are there.

        Raises:
            StorageError: the folder cannot be written.
        """
        rows: dict[str, list[str]] = {}
        for fit in fits:
            rows.setdefault(fit.row.label, []).append(self._path(fit).name)
        content = {
            "schema": SCHEMA,
            "run": self._basis["test_run"],
            "began": time.time(),
            "rows": rows,
            "found": sorted(self._path(fit).name for fit in found),
        }
        path = self._folder / PLAN
        with storage_errors(
            f"write {path}", f"choose another {parameter('folder', option='--out')}"
        ):
            atomic_files.write(path, canonical(content))

    def _digest(self, fit: Fit) -> str:
        basis = {
            **self._basis,
            "split": self._splits[fit.fold],
            "name": fit.row.name,
            "options": fit.row.options,
            "seed": fit.seed,
        }
        # The version of the package stands for the code of built-in detectors.
        if (code := REGISTRY.code_digest(fit.row.name)) is not None:
            basis["code"] = code
        return digest(basis).hex()

    def _path(self, fit: Fit) -> Path:
        label, fold, seed = fit.key
        text = re.sub(r"[^\w.=-]+", "_", label)
        mark = hashlib.sha256(label.encode()).hexdigest()[:8]
        return self._folder / f"{text[:80]}-{mark}-fold{fold}-seed{seed}.json"


def run_digest(examples: Examples) -> dict[str, str]:
    """A run and its labels: fingerprint, and digest of keys and labels."""
    return {
        "fingerprint": examples.store.manifest.fingerprint,
        "traces": digest([examples.keys, examples.labels.tolist()]).hex()[:16],
    }


def index_digest(*arrays: NDArray[np.int64]) -> str:
    """16 hexadecimal digits of the digest of index arrays."""
    return digest([array.tolist() for array in arrays]).hex()[:16]
