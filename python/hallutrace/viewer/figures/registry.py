"""The figures by name."""

from __future__ import annotations

from collections.abc import Callable

from hallutrace.errors import InputError
from hallutrace.viewer.figures.attention_graph import attention_graph
from hallutrace.viewer.figures.calibration import calibration
from hallutrace.viewer.figures.comparison import comparison
from hallutrace.viewer.figures.drawing import FigureRequest, PaperFigure
from hallutrace.viewer.figures.layers_heads import layers_heads
from hallutrace.viewer.figures.map import hidden_map
from hallutrace.viewer.figures.roc import roc
from hallutrace.viewer.figures.training import training

FIGURES: dict[str, Callable[[FigureRequest], PaperFigure]] = {
    "roc": roc,
    "calibration": calibration,
    "comparison": comparison,
    "layers-heads": layers_heads,
    "attention-graph": attention_graph,
    "map": hidden_map,
    "training": training,
}
NEED_EVALUATION = frozenset({"roc", "calibration", "comparison"})
"""Those that show an evaluation."""


def make_figure(name: str, request: FigureRequest) -> PaperFigure:
    """A figure by its name.

    Args:
        name: of :data:`FIGURES`.
        request: what it is made of.

    Raises:
        InputError: no such figure, or a request that it refuses; see each figure.

    Examples:
        >>> from hallutrace.viewer.viewed_run import ViewedRun
        >>> viewed = ViewedRun(hallutrace.open(run))
        >>> figure = make_figure("layers-heads", FigureRequest(viewed, shown="mean"))
        >>> figure.columns[:3], len(figure.rows)
        (('layer', 'head', 'mean'), 32)
    """
    if name not in FIGURES:
        raise InputError(f"Expected one of {', '.join(FIGURES)}, got {name!r} - choose a figure")
    return FIGURES[name](request)
