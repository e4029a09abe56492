"""Draws docs/images/trace.svg: the attention of one answer of the small model, from its trace.

Run it as `make picture`.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

import hallutrace
from hallutrace.labels import label
from hallutrace.viewer.figures.attention_graph import attention_graph
from hallutrace.viewer.figures.drawing import FigureRequest
from hallutrace.viewer.viewed_run import ViewedRun

PICTURE = Path(__file__).parents[1] / "docs" / "images" / "trace.svg"
LAYER = 2


def main() -> None:
    """Makes a run and draws the first wrong answer of some length."""
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        hallutrace.extract(hallutrace.ExtractConfig(questions="demo:40", out=run))
        label(run, "contains")
        viewed = ViewedRun(hallutrace.open(run))
        wrong = np.flatnonzero(viewed.label_values("contains") == 1)
        chosen = next(at for at in wrong if len(viewed.store[int(at)].logprob) > 3)
        request = FigureRequest(viewed, trace=viewed.key_texts[chosen], layer=LAYER)
        figure = attention_graph(request)
    PICTURE.parent.mkdir(parents=True, exist_ok=True)
    PICTURE.write_bytes(figure.picture("svg", "double"))
    print(f"{PICTURE} ({PICTURE.stat().st_size:,} bytes): {figure.caption}")


if __name__ == "__main__":
    main()
