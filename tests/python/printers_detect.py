"""The commands of detectors; with those of runs, ``PRINTERS`` has all."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace as Made
from typing import Any
from unittest.mock import MagicMock as Mock

import numpy as np

from hallutrace.commands import ask, evaluate, score, train
from hallutrace.escaping import cell
from hallutrace.escaping import plain as one_line
from printers import ARGUMENT, PRINTERS, Patch, Store, ends, interrupted, path_of, printer

__all__ = ["PRINTERS"]


@printer
def evaluation(patch: Patch, texts: list[str]) -> list[str]:
    home = "hallutrace.detect.evaluation"
    rows = [
        Made(label=text, is_control=at % 2, is_requested=False) for at, text in enumerate(texts)
    ]
    made = Made(missing=texts[:2], failed={}, options=Made(rows=rows, level=0.95))
    cells = {text: None if at < 4 else [f"{at} x"] * 9 for at, text in enumerate(texts)}

    def evaluated(*_: Any, progress: Any, **__: Any) -> Any:
        progress.begin(len(texts), 1)
        for text in texts[:3]:
            progress.start(text)
            progress.epoch(text, 1, 0.5, 0.5)
            progress.end(text, 1.0, None)
        progress.end(texts[3], 1.0, texts[4])
        return made

    patch.setattr(f"{home}.EvaluationOptions", lambda **_: Made(rows=rows, level=0.95))
    patch.setattr(f"{home}.table_rows", lambda *_: rows)
    patch.setattr(evaluate, "_check_out", lambda *_: None)
    patch.setattr(evaluate, "_data", lambda *_: None)
    patch.setattr(f"{home}.inapplicable", lambda *_: {})
    patch.setattr(f"{home}.evaluate", evaluated)
    patch.setattr(f"{home}.write_report", lambda *_: None)
    patch.setattr(f"{home}.title", lambda *_: texts[5])
    patch.setattr(f"{home}.remarks", lambda _: texts[6:9])
    patch.setattr(f"{home}.table_cells", lambda _, row: cells[row.label])
    evaluate.run_evaluate(texts[0], Path("run"), out=path_of(texts[1]))
    return [*map(cell, texts), *(cell(text, 1000) for text in texts[5:9])]


@printer
def evaluation_stopped(patch: Patch, texts: list[str]) -> list[str]:
    patch.setattr(sys, "argv", ["hallutrace", *(text[:ARGUMENT] for text in texts)])
    with patch.context() as inner, ends(130):
        inner.setattr("hallutrace.commands.evaluate.FitsDisplay", interrupted)
        evaluation(inner, texts)
    return []


def _trained(patch: Patch, texts: list[str], fit: Callable[..., None]) -> None:
    written = Made(write=lambda _: None, validation_auroc=0.5)
    detector = Made(check=lambda _: None, check_can_be_saved=lambda: None, save=lambda _: None)
    examples = Mock(take=lambda part: part, __len__=lambda _: 3)
    patch.setattr("hallutrace.detect.evaluation.parse_options", lambda *_: {})
    patch.setattr("hallutrace.detect.make", lambda *_, **__: detector)
    patch.setattr("hallutrace.detect.load_examples", lambda *_, **__: examples)
    patch.setattr(train, "_parts", lambda *_: ([1], [2]))
    patch.setattr("hallutrace.detect.provenance.TrainingTraces.of", lambda *_: written)
    patch.setattr("hallutrace.store.reader.open_run", lambda _: None)
    patch.setattr(train, "_provenance", lambda *_: written)
    patch.setattr(train, "_check_out", lambda *_: None)
    patch.setattr(train, "_fit", fit)
    patch.setattr(train, "_finish", lambda *_: written)
    train.run_train(path_of(texts[0]), texts[1], texts[2], path_of(texts[3]))


@printer
def training(patch: Patch, texts: list[str]) -> list[str]:
    def fit(detector: Any, learn: Any, validation: Any, told: Any, folder: Path) -> None:
        told.epoch(1, 0.5, 0.5, 1.0)
        for text in texts:
            told.note(text)

    _trained(patch, texts, fit)
    return [one_line(str(path_of(texts[3])))]


@printer
def training_stopped(patch: Patch, texts: list[str]) -> list[str]:
    patch.setattr(sys, "argv", ["hallutrace", *(text[:ARGUMENT] for text in texts)])
    with ends(130):
        _trained(patch, texts, interrupted)
    return []


@printer
def scoring(patch: Patch, texts: list[str]) -> list[str]:
    rows = [
        {"id": text, "sample": 0, "score": 0.5, "risk": None, "label": at % 2, "part": ""}
        for at, text in enumerate(texts)
    ]
    detector = Made(check=lambda _: None, name=texts[0])
    patch.setattr("hallutrace.detect.load", lambda _: detector)
    patch.setattr("hallutrace.detect.provenance.Provenance.read", lambda _: None)
    patch.setattr("hallutrace.detect.provenance.TrainingTraces.read", lambda _: None)
    patch.setattr("hallutrace.store.reader.open_run", lambda _: Store(Path("run"), "model"))
    patch.setattr(score, "_labels", lambda *_: (texts[1], {}))
    patch.setattr(score, "_rows", lambda *_: rows)
    patch.setattr(score, "_warning", lambda *_: texts[2])
    for out in (None, Path(os.devnull).with_name("scores.csv")):
        patch.setattr(score, "_write", score._write if out is None else lambda *_: None)
        score.run_score(Path("r"), Path("d"), out, overwrite=True)
    return [one_line(texts[1])]


@printer
def asking(patch: Patch, texts: list[str]) -> list[str]:
    trace: Any = Made(question=texts[0], answer=texts[1])
    detector: Any = Made(name=texts[2])
    ask._print(trace, detector, 0.5, None, texts[3:], np.arange(len(texts) - 3))
    ask._print(trace, detector, 0.5, 0.5, texts[3:], None)
    return [one_line(texts[0]), *map(one_line, texts[3:])]
