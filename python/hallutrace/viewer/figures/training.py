"""Loss and validation AUROC of a detector that is trained in epochs."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from hallutrace.errors import DamagedError, InputError, NotInRunError
from hallutrace.option_names import parameter
from hallutrace.viewer.evaluations.discovery import find_for
from hallutrace.viewer.figures.drawing import FigureRequest, PaperFigure
from hallutrace.viewer.figures.evaluated import MOST
from hallutrace.viewer.figures.style import line_style, wrapped

HISTORY = "history.json"
_NUMBERS = ("epoch", "loss", "validation_auroc", "learning_rate")


def training(request: FigureRequest) -> PaperFigure:
    """The epochs of each network of one detector.

    Args:
        request: ``detectors``, the folder of the detector; or run, whose newest one is taken.

    Raises:
        InputError: several folders.
        NotInRunError: no detector that is trained in epochs.
        DamagedError: a history that is not what was written.
    """
    folder = _folder(request)
    histories = {_name(path, folder): _read(path) for path in sorted(folder.rglob(HISTORY))}
    if not histories:
        raise NotInRunError(
            f"Expected a {HISTORY} in {folder}, got none - `hallutrace train RUN --detector "
            "mlp-probe --label NAME --out DIR` trains a detector in epochs"
        )
    drawn = dict(list(histories.items())[:MOST])

    def draw(figure: Any) -> None:
        panels = figure.subplots(2, 1, sharex=True)
        for number, (name, epochs) in enumerate(drawn.items()):
            numbers = [one["epoch"] for one in epochs]
            style = {**line_style(number), "markevery": max(1, len(epochs) // 8), "markersize": 3}
            for axes, what in zip(panels, _NUMBERS[1:3], strict=True):
                values = [one[what] if one[what] is not None else math.nan for one in epochs]
                axes.plot(
                    numbers, values, label=wrapped(name, 20) if axes is panels[0] else None, **style
                )
        panels[0].set_ylabel("loss")
        panels[1].set(xlabel="epoch", ylabel="validation AUROC")
        if len(drawn) > 1:
            figure.legend(loc="outside lower center", ncols=2)

    rows = [
        (name, *(one[what] for what in _NUMBERS))
        for name, epochs in drawn.items()
        for one in epochs
    ]
    left = len(histories) - len(drawn)
    more = f" The first {MOST} of {len(histories)} networks are shown." if left else ""
    caption = f"Training of the detector in {folder.name}, {len(drawn)} network(s).{more}"
    return PaperFigure(caption, ("network", *_NUMBERS), rows, draw, 3.4)


def _folder(request: FigureRequest) -> Path:
    if len(request.detectors) > 1:
        raise InputError(
            f"Expected one detector for this figure, got {len(request.detectors)} - give "
            f"{parameter('detectors', option='--detector')} once"
        )
    if request.detectors:
        return Path(request.detectors[0]).expanduser()
    if request.viewed is None:
        raise InputError(
            "Expected the folder of a detector, got none - give "
            f"{parameter('detectors', 'DIR', option='--detector')}, "
            "or RUN to take the newest one that was trained on it"
        )
    found = find_for(request.viewed.store).detectors
    trained = [one.folder for one in found if next(one.folder.rglob(HISTORY), None)]
    if not trained:
        raise NotInRunError(
            "No detector that is trained in epochs was found for this run: `hallutrace train RUN "
            "--detector mlp-probe --label NAME --out DIR` makes one; give it with "
            f"{parameter('detectors', 'DIR', option='--detector')}"
        )
    return trained[0]


def _name(path: Path, folder: Path) -> str:
    """The network that a history is of, by its folder."""
    parts = [part for part in path.parent.relative_to(folder).parts if part != "training"]
    return "/".join(parts) or folder.name


def _read(path: Path) -> list[dict[str, Any]]:
    try:
        epochs = json.loads(path.read_bytes())["epochs"]
        return [
            {name: None if one[name] is None else float(one[name]) for name in _NUMBERS}
            | {"epoch": int(one["epoch"])}
            for one in epochs
        ]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DamagedError(
            f"Expected what `hallutrace train` wrote, got {type(error).__name__} {error} in {path} "
            "- restore it from a copy, or train again"
        ) from None
