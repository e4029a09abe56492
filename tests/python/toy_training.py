"""A small network on made-up numbers; run as a script, a training that waits to be killed."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from hallutrace.detect.nets.history import Epoch
from hallutrace.detect.nets.task import Task, classification, cross_entropy
from hallutrace.detect.nets.training import Training
from hallutrace.detect.nets.training_options import TrainingOptions
from hallutrace.model.seeding import seeded


def toy(signal: float = 2.0, count: int = 200) -> Task:
    """Labels from one of six columns; half is for validation."""
    rng = np.random.default_rng(3)
    labels = (np.arange(count) % 2).astype(np.int8)
    columns = rng.normal(size=(count, 6)).astype(np.float32)
    columns[:, 2] += signal * labels
    x = torch.from_numpy(columns)
    half = count // 2
    model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 1))

    def loss(rows: np.ndarray, truth: torch.Tensor, device: torch.device) -> torch.Tensor:
        return cross_entropy(model(x[torch.from_numpy(rows)].to(device))[:, 0], truth)

    def scores(_: int, device: torch.device) -> np.ndarray:
        return model(x[half:].to(device))[:, 0].double().cpu().numpy()

    return classification(model, labels[:half], labels[half:], loss, scores)


def fitted(
    workspace: Path | None = None,
    *,
    task: Any = None,
    progress: Any = None,
    seed: int = 0,
    **options: Any,
) -> tuple[dict[str, torch.Tensor], list[Epoch]]:
    """Weights and history of a training of the toy."""
    plain = {"epochs": 12, "patience": 12, "batch_size": 16, "learning_rate": 0.02}
    chosen = TrainingOptions(**{**plain, **options})
    with seeded(seed, torch.device("cpu")):
        made = toy() if task is None else task()
        epochs = Training(made, chosen, seed=seed, progress=progress, workspace=workspace).run()
    return {name: t.clone() for name, t in made.model.state_dict().items()}, epochs


class Slow:
    def epoch(self, number: int, loss: float, validation_auroc: float, seconds: float) -> None:
        print(number, flush=True)
        time.sleep(0.05)

    def note(self, text: str) -> None:
        pass


if __name__ == "__main__":
    torch.set_num_threads(int(sys.argv[2]))
    fitted(Path(sys.argv[1]), progress=Slow(), epochs=40, patience=40)
