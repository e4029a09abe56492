"""What a saved detector says of a trace: its score, and the risk of each answer token."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from hallutrace.detect.provenance import Provenance, TrainingTraces
from hallutrace.errors import HallutraceError, NotInRunError
from hallutrace.store.finite_numbers import require_finite
from hallutrace.store.trace import Trace
from hallutrace.viewer.viewed_run import ViewedRun


def trace_risk(viewed: ViewedRun, trace: Trace) -> dict[str, Any] | None:
    """The risk of a trace by the detector that is shown.

    Args:
        viewed: the run, with its detector.
        trace: of the run.

    Returns:
        None if no detector is shown. Else ``name`` of the detector; ``label``, the protocol it
        learnt, None if unknown; ``part``, where the trace was in its training: ``train``,
        ``validation`` or None; ``score``; ``probability`` by the curve fitted in training, None
        without one; ``tokens`` float32 [A], None where it has no risk of tokens; ``problem``, why
        it could not score the trace, None if it could.

    Examples:
        >>> viewed = ViewedRun(hallutrace.open(run))
        >>> trace_risk(viewed, viewed.store[0]) is None
        True
    """
    if viewed.detector is None:
        return None
    empty = dict.fromkeys(["label", "part", "score", "probability", "tokens", "problem"])
    try:
        detector, provenance, seen = _saved(viewed.detector, _changed(viewed.detector))
        known = {**empty, "name": detector.name}
        if provenance is not None:
            known["label"] = provenance.label
            is_same_run = provenance.fingerprint == viewed.store.manifest.fingerprint
            known["part"] = _part(seen, trace) if is_same_run else None
        return known | _scored(detector, provenance, viewed, trace)
    except HallutraceError as error:
        return {**empty, "name": viewed.detector.name, "problem": str(error)}


def _scored(
    detector: Any, provenance: Provenance | None, viewed: ViewedRun, trace: Trace
) -> dict[str, Any]:
    detector.check(viewed.store)
    score = float(require_finite(np.array([detector.score(trace)]), "score", trace)[0])
    curve = None if provenance is None else provenance.curve
    by_token = detector.token_scores(trace)
    return {
        "score": score,
        "probability": None if curve is None else float(curve([score])[0]),
        "tokens": None if by_token is None else np.asarray(by_token, np.float32),
    }


def _part(seen: TrainingTraces | None, trace: Trace) -> str | None:
    key = (trace.id, trace.sample)
    if seen is None:
        return None
    return "train" if key in seen.train else "validation" if key in seen.validation else None


@lru_cache(maxsize=4)
def _saved(folder: Path, changed: int) -> tuple[Any, Provenance | None, TrainingTraces | None]:
    """A saved detector, loaded once; ``changed`` makes it loaded again after another training."""
    from hallutrace.detect import load

    return load(folder), Provenance.read(folder), TrainingTraces.read(folder)


def _changed(folder: Path) -> int:
    try:
        return (folder / "detector.json").stat().st_mtime_ns
    except OSError:
        raise NotInRunError(
            f"Expected a detector in {folder}, got none - `hallutrace train` makes one"
        ) from None
