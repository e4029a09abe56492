"""A marginal by layer and head: hallucinated less right, the mean of the run, or AUROC."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hallutrace.errors import InputError, NotInRunError
from hallutrace.option_names import parameter
from hallutrace.viewer.data.layers import layers_data
from hallutrace.viewer.figures.drawing import FigureRequest, PaperFigure
from hallutrace.viewer.figures.style import CLASS_MARKS, DIVERGING, INK, SEQUENTIAL, color_map

SHOWN = ("difference", "mean", "auroc")
_COLUMNS = ("mean", "deviation")
_COMPARED = ("mean_hallucinated", "mean_right", "difference", "low", "high", "corrected", "auroc")


@dataclass(frozen=True)
class _Scale:
    """What is coloured: its values, between which limits, and what they are called."""

    values: NDArray[np.float32]
    low: float
    high: float
    stops: tuple[tuple[int, int, int], ...]
    title: str


def layers_heads(request: FigureRequest) -> PaperFigure:
    """A grid of layers x heads.

    Args:
        request: run, ``label``, ``marginal``, ``shown`` (None is the difference where there are
            labels).

    Raises:
        NotInRunError: no such marginal or labels, or too few groups to compare.
        InputError: another ``shown``.
    """
    viewed = request.run
    label = viewed.label(request.label) if request.label or viewed.labels else None
    shown = request.shown or ("difference" if label else "mean")
    if shown not in SHOWN:
        raise InputError(
            f"Expected one of {', '.join(SHOWN)}, got {shown!r} - change {parameter('shown')}"
        )
    if shown != "mean" and label is None:
        viewed.label(None)  # tells how labels are made
    data = layers_data(viewed, marginal=request.marginal, label=label)
    if shown != "mean" and "untested" in data:
        raise NotInRunError(data["untested"])
    scale = _scale(data, shown)
    is_marked = data["corrected"] < 1 - data["level"] if shown != "mean" else np.zeros(0, bool)

    def draw(figure: Any) -> None:
        _draw(figure, data, scale, is_marked)

    heads = data["marginal"]["heads"]
    names = [name for name in (*_COLUMNS, *_COMPARED) if name in data]
    rows = [
        (layer, head, *(data[name][row, head] for name in names))
        for row, layer in enumerate(data["layers"])
        for head in range(heads[row])
    ]
    columns = ("layer", "head", *("p_corrected" if one == "corrected" else one for one in names))
    height = min(8.5, 1.5 + 0.13 * max(len(data["layers"]), 6))
    return PaperFigure(_caption(data, shown, is_marked), columns, rows, draw, height)


def _scale(data: dict[str, Any], shown: str) -> _Scale:
    marginal, values = data["marginal"], data[shown]
    unit = f" ({marginal['unit']})" if marginal["unit"] else ""
    if shown == "mean":
        low, high = float(np.nanmin(values)), float(np.nanmax(values))
        return _Scale(values, low, high, SEQUENTIAL, f"{marginal['title']}{unit}")
    if shown == "auroc":
        most = max(0.05, float(np.nanmax(np.abs(values - 0.5))))
        return _Scale(values, 0.5 - most, 0.5 + most, DIVERGING, f"AUROC of {marginal['title']}")
    most = float(np.nanmax(np.abs(values))) or 1.0
    title = f"{marginal['title']},\nhallucinated less right{unit}"
    return _Scale(values, -most, most, DIVERGING, title)


def _draw(figure: Any, data: dict[str, Any], scale: _Scale, is_marked: NDArray[np.bool_]) -> None:
    from matplotlib.ticker import MaxNLocator

    axes, layers = figure.subplots(), data["layers"]
    rows, heads = scale.values.shape
    mesh = axes.pcolormesh(
        np.arange(heads + 1) - 0.5,
        np.arange(rows + 1) - 0.5,
        np.ma.masked_invalid(scale.values),
        cmap=color_map(scale.stops),
        vmin=scale.low,
        vmax=scale.high,
        edgecolors="white",
        linewidth=0.3,
    )
    if is_marked.size:
        # What may be chance is pale, as on the page.
        veil = np.ma.masked_where(is_marked | ~np.isfinite(scale.values), np.ones(is_marked.shape))
        axes.pcolormesh(
            mesh.get_coordinates()[0, :, 0],
            mesh.get_coordinates()[:, 0, 1],
            veil,
            cmap=color_map(((255, 255, 255), (255, 255, 255))),
            alpha=0.6,
            edgecolors="none",
        )
        center = (scale.low + scale.high) / 2
        for label, chosen in ((1, scale.values > center), (0, scale.values <= center)):
            at_layer, at_head = np.nonzero(is_marked & chosen)
            mark = CLASS_MARKS[label]
            axes.scatter(at_head, at_layer, s=9, marker=mark, facecolor="white", edgecolor=INK,
                         linewidth=0.5)  # fmt: skip
    axes.invert_yaxis()
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    every = -(-rows // 18)
    axes.set_yticks(range(0, rows, every), [str(one) for one in layers[::every]])
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    axes.set(xlabel="value head" if data["marginal"]["by_value_head"] else "head", ylabel="layer")
    figure.colorbar(mesh, ax=axes, location="bottom", label=scale.title, shrink=0.9, aspect=30)


def _caption(data: dict[str, Any], shown: str, is_marked: NDArray[np.bool_]) -> str:
    marginal = data["marginal"]
    begin = f"{marginal['title']} by layer and head; of a trace the {marginal['over']}; "
    if shown == "mean":
        return f"{begin}mean of {data['traces']:,} traces."
    count = sum(marginal["heads"])
    return (
        f"{begin}{data['hallucinated']:,} hallucinated against {data['right']:,} right answers by "
        f"{data['label']} ({data['groups']:,} groups). {int(is_marked.sum())} of {count:,} heads "
        f"differ in their mean (marked: a triangle where hallucinated answers have more, a circle "
        f"where they have less; by group, corrected by Holm, level {1 - data['level']:.2g})."
    )
