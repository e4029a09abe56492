"""What happened in a training: epochs as files, and a diagnosis where nothing was learnt."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from statistics import median
from typing import Any

from hallutrace.canonical_json import canonical
from hallutrace.detect.nets.checkpoints import write_bytes

# Below this AUROC on the validation part, a training is said to have learnt nothing.
_LEARNT = 0.55
# Of the loss at the beginning: what counts as flat, and as having gone down.
_FLAT, _DOWN = 0.02, 0.2
_SMALL, _LARGE = 1e-4, 1e2
_RARE = 0.05


@dataclass(frozen=True)
class Epoch:
    """One epoch.

    Attributes:
        epoch: number, from 1.
        loss: mean over the training part.
        validation_auroc: on the validation part.
        monitored: what early stopping goes by, higher is better.
        learning_rate: in it.
        gradient: median L2 norm of the gradients of its batches, before clipping.
        batch_size: traces in a batch.
        seconds: that it took, validation included.
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
        folder: made if it is not there.
        epochs: all so far.
        notes: what happened beside: batches halved, going back, a diagnosis.

    Raises:
        StorageError: they cannot be written.
    """
    rows = [asdict(epoch) for epoch in epochs]
    write_bytes(folder / "history.json", canonical({"epochs": rows, "notes": list(notes)}) + b"\n")
    text = io.StringIO()
    table = csv.DictWriter(text, [field.name for field in fields(Epoch)], lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    write_bytes(folder / "history.csv", text.getvalue().encode())


def board(folder: Path, epoch: int) -> Any:
    """A TensorBoard writer that goes on from an epoch; None where TensorBoard is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder / "tensorboard"), purge_step=epoch)


def tell_board(writer: Any, epoch: Epoch) -> None:
    """Adds an epoch to TensorBoard."""
    for name, value in asdict(epoch).items():
        if name != "epoch":
            writer.add_scalar(name, value, epoch.epoch)


def diagnose(epochs: Sequence[Epoch], share: float) -> str | None:
    """What was seen in a training that learnt nothing.

    Args:
        epochs: all of it.
        share: of hallucinated answers among those learnt from.

    Returns:
        None where validation AUROC has been .55 or more, or is not known.
    """
    known = [epoch.validation_auroc for epoch in epochs if not math.isnan(epoch.validation_auroc)]
    if not known or max(known) >= _LEARNT:
        return None
    first, last = epochs[0].loss, epochs[-1].loss
    gone = (first - last) / max(abs(first), 1e-12)
    gradient = median(epoch.gradient for epoch in epochs)
    trend = "flat" if abs(gone) < _FLAT else "falling" if gone > 0 else "rising"
    size = "small" if gradient < _SMALL else "large" if gradient > _LARGE else "ordinary"
    seen = (
        f"It did not learn: validation AUROC at best {max(known):.3f} in {len(epochs)} epochs; "
        f"loss {first:.4g} to {last:.4g} ({trend}); gradients of norm {gradient:.2g} ({size}); "
        f"{100 * share:.0f}% of the training part hallucinated; learning rate "
        f"{epochs[0].learning_rate:.2g} to {epochs[-1].learning_rate:.2g}"
    )
    return f"{seen}. {_likely(gone, gradient, share)}"


def _likely(gone: float, gradient: float, share: float) -> str:
    """What that is likely to mean, and what to try."""
    if min(share, 1 - share) < _RARE:
        return "One class is rare: take more traces, or another labelling protocol"
    if gradient > _LARGE:
        return "Gradients are large: lower `learning_rate`"
    if gradient < _SMALL:
        return "Gradients vanish: raise `learning_rate`, or look whether the features are constant"
    if gone >= _DOWN:
        return (
            "The training part is learnt by heart: raise `weight_decay` or `dropout`, take a "
            "smaller network, or more traces"
        )
    return (
        "Loss does not move: features may hold nothing of these labels; compare linear detectors, "
        "or raise `learning_rate`"
    )
