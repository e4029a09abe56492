"""Epochs of a training as files, and a diagnosis of a training that learned nothing."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from statistics import median

from hallutrace import atomic_files
from hallutrace.atomic_files import storage_errors
from hallutrace.canonical_json import canonical

WHOLE = "history.json"

# A training that never reaches this AUROC on the validation part learned nothing.
_LEAST_AUROC = 0.55
# Relative change of the loss: less is flat, more is a training part learned by heart.
_FLAT, _FALLEN = 0.02, 0.2
_SMALL_GRADIENT, _LARGE_GRADIENT = 1e-4, 1e2
_RARE_CLASS = 0.05


@dataclass(frozen=True)
class Epoch:
    """One epoch.

    Attributes:
        epoch: number, from 1.
        loss: mean over the training part.
        validation_auroc: AUROC on the validation part.
        monitored: the value that early stopping maximises.
        learning_rate: in this epoch.
        gradient: median over the batches of the L2 norm of the gradient, before clipping.
        batch_size: traces in a batch.
        seconds: duration, validation included.
    """

    epoch: int
    loss: float
    validation_auroc: float
    monitored: float
    learning_rate: float
    gradient: float
    batch_size: int
    seconds: float


def write(folder: Path, epochs: Sequence[Epoch], notes: Sequence[str]) -> None:
    """Writes ``history.json`` and ``history.csv``.

    Args:
        folder: made if it is missing.
        epochs: all so far.
        notes: messages: batches halved, learning rate lowered, diagnosis.

    Raises:
        StorageError: they cannot be written.
    """
    rows = [asdict(epoch) for epoch in epochs]
    text = io.StringIO()
    table = csv.DictWriter(text, [field.name for field in fields(Epoch)], lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    content = canonical({"epochs": rows, "notes": list(notes)}) + b"\n"
    with storage_errors(f"write {folder}", "choose another folder"):
        atomic_files.write(folder / WHOLE, content)
        atomic_files.write(folder / "history.csv", text.getvalue().encode())


def diagnose(epochs: Sequence[Epoch], hallucinated: float) -> str | None:
    """What a training that learned nothing looks like, and what to try.

    Args:
        epochs: all of the training.
        hallucinated: share of hallucinated answers in the training part.

    Returns:
        None if the validation AUROC reached .55, or is not known.
    """
    known = [epoch.validation_auroc for epoch in epochs if not math.isnan(epoch.validation_auroc)]
    if not known or max(known) >= _LEAST_AUROC:
        return None
    first, last = epochs[0], epochs[-1]
    fall = (first.loss - last.loss) / max(abs(first.loss), 1e-12)
    gradient = median(epoch.gradient for epoch in epochs)
    trend = "flat" if abs(fall) < _FLAT else "falling" if fall > 0 else "rising"
    is_small, is_large = gradient < _SMALL_GRADIENT, gradient > _LARGE_GRADIENT
    size = "small" if is_small else "large" if is_large else "ordinary"
    is_rare = min(hallucinated, 1 - hallucinated) < _RARE_CLASS
    advice = next(
        text
        for is_so, text in (
            (is_rare, "One class is rare: take more traces, or another labelling protocol"),
            (is_large, "Gradients are large: lower `learning_rate`"),
            (is_small, "Gradients vanish: raise `learning_rate`, or look for constant features"),
            (fall >= _FALLEN, "The training part is learned by heart: raise `weight_decay` or "
             "`dropout`, take a smaller network, or more traces"),
            (True, "The loss does not move: the features may hold nothing of these labels; compare "
             "linear detectors, or raise `learning_rate`"),
        )
        if is_so
    )  # fmt: skip
    return (
        f"It did not learn: validation AUROC at best {max(known):.3f} in {len(epochs)} epochs; "
        f"loss {first.loss:.4g} to {last.loss:.4g} ({trend}); gradients of norm {gradient:.2g} "
        f"({size}); {100 * hallucinated:.0f}% of the training part hallucinated; learning rate "
        f"{first.learning_rate:.2g} to {last.learning_rate:.2g}. {advice}"
    )
