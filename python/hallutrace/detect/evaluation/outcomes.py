"""What one fit gave, and the folder where outcomes wait for the others of their table.

Each outcome is a file of its own, written under another name first, so a kill loses the fits that
were in progress and no others. A file tells by its digest what it was computed from; one that was
computed from anything else is not read.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hallutrace import atomic_files
from hallutrace.atomic_files import storage_errors
from hallutrace.canonical_json import canonical, digest
from hallutrace.detect.evaluation.material import Material
from hallutrace.detect.evaluation.plan import Job
from hallutrace.detect.examples import Examples

SCHEMA = 1


@dataclass(frozen=True)
class Outcome:
    """What one detector, fitted on one fold with one seed, gave.

    Attributes:
        test: scores of the test part, in its order.
        validation: scores of the validation part, in its order.
        epochs: that it was trained for; 0 where it is not trained in epochs.
        notes: what it said while it was fitted.
        fit_seconds: spent fitting; features that a fold computed first are in it.
        trace_ms: to score a trace, features included, nothing cached but the pages of the files.
    """

    test: tuple[float, ...]
    validation: tuple[float, ...]
    epochs: int
    notes: tuple[str, ...]
    fit_seconds: float
    trace_ms: float


class Outcomes:
    """A folder of outcomes.

    Args:
        folder: made when something is kept.
        material: what they are computed from.
        versions: of the packages that they depend on.
    """

    def __init__(self, folder: Path, material: Material, versions: dict[str, Any]) -> None:
        self._folder = folder
        self._basis = {
            "schema": SCHEMA,
            "versions": versions,
            "learn": basis_of(material.learn),
            "test": basis_of(material.test),
        }
        self._parts = [digest_of(part.train, part.validation, part.test) for part in material.parts]

    def find(self, job: Job) -> Outcome | None:
        """An outcome that was kept before; None where there is none, or one of something else."""
        try:
            content = json.loads(self._path(job).read_bytes())
            if content.pop("basis") != self._digest(job):
                return None
            for name in ("test", "validation", "notes"):
                content[name] = tuple(content[name])
            return Outcome(**content)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None  # it is made again

    def keep(self, job: Job, outcome: Outcome) -> None:
        """Writes an outcome, whole or not at all.

        Raises:
            StorageError: the folder cannot be written.
        """
        path = self._path(job)
        content = canonical({**asdict(outcome), "basis": self._digest(job)})
        with storage_errors(f"write {path}", "choose another --out"):
            atomic_files.write(path, content)

    def _digest(self, job: Job) -> str:
        basis = {
            **self._basis,
            "part": self._parts[job.fold],
            "name": job.row.name,
            "options": job.row.options,
            "seed": job.seed,
        }
        return digest(basis).hex()

    def _path(self, job: Job) -> Path:
        text = re.sub(r"[^\w.=-]+", "_", job.row.label)
        mark = hashlib.sha256(job.row.label.encode()).hexdigest()[:8]
        return self._folder / f"{text[:80]}-{mark}-fold{job.fold}-seed{job.seed}.json"


def basis_of(examples: Examples) -> dict[str, str]:
    """What stands for a run and its labels: fingerprint, and digest of keys and labels."""
    return {
        "fingerprint": examples.store.manifest.fingerprint,
        "traces": digest([examples.keys, examples.labels.tolist()]).hex()[:16],
    }


def digest_of(*parts: NDArray[np.int64]) -> str:
    """16 hexadecimal digits that stand for index arrays."""
    return digest([part.tolist() for part in parts]).hex()[:16]
