"""Hidden states of all traces as points of a plane, by label."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hallutrace.viewer.figures.drawing import FigureRequest, PaperFigure
from hallutrace.viewer.figures.style import CLASS_COLORS, CLASS_MARKS, CLASS_NAMES
from hallutrace.viewer.projections import files
from hallutrace.viewer.projections.files import Wanted
from hallutrace.viewer.projections.hidden import chosen_states
from hallutrace.viewer.projections.neighbours import Preservation
from hallutrace.viewer.projections.projection import Projection, method_named, project
from hallutrace.viewer.viewed_run import NO_LABEL

_VECTOR = 5000  # points that are drawn as shapes; more become pixels within the figure
_NAMES = {"pca": "PCA", "tsne": "t-SNE", "umap": "UMAP"}


def hidden_map(request: FigureRequest) -> PaperFigure:
    """A projection of one hidden state of each trace: the stored one, or a PCA made now.

    Args:
        request: run, ``label``, ``method``, ``layer``, ``token``, ``seed``.

    Raises:
        NotInRunError: no hidden states or labels, or a projection other than PCA that is not
            stored; the message names the command that stores it.
        InputError: no such method, layer or token.
    """
    viewed = request.run
    wanted = Wanted(
        method_named(request.method),
        *chosen_states(viewed.store, request.layer, request.token),
        request.seed,
    )
    if wanted.method != "pca" or wanted in files.stored(viewed.store):
        found = files.read(viewed.store, wanted)
    else:
        found = project(viewed.store, "pca", wanted.layer, wanted.token, wanted.seed)
    has_labels = bool(request.label or viewed.labels)
    labels = (
        viewed.label_values(request.label)
        if has_labels
        else np.full(len(found.positions), NO_LABEL, np.int8)
    )

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        _scatter(axes, found, labels)
        if has_labels:
            figure.legend(loc="outside lower center", ncols=2, handletextpad=0.1)

    rows = [
        (key, x, y, None if label == NO_LABEL else int(label))
        for key, (x, y), label in zip(viewed.key_texts, found.positions, labels, strict=True)
    ]
    caption = (
        f"{_NAMES[found.method]} of the hidden state `{found.token}` of layer {found.layer}, "
        f"{len(rows):,} traces"
        + (f", by {viewed.label(request.label)}" if has_labels else "")
        + (f", seed {found.seed}" if found.method != "pca" else "")
        + _kept(found.preservation)
    )
    return PaperFigure(caption, ("trace", "x", "y", "label"), rows, draw, 3.3)


def _scatter(axes: Any, found: Projection, labels: NDArray[np.int8]) -> None:
    """The points, hallucinated ones on top."""
    for label in (NO_LABEL, 0, 1):
        points = found.positions[labels == label]
        if len(points):
            axes.scatter(
                *points.T,
                s=9,
                marker=CLASS_MARKS[label],
                facecolor=CLASS_COLORS[label] if label == 1 else "none",
                edgecolor=CLASS_COLORS[label],
                linewidth=0.6,
                alpha=0.75,
                label=f"{CLASS_NAMES[label]} ({len(points):,})",
                rasterized=len(found.positions) > _VECTOR,
            )
    axes.set(xlabel=_axis(found, 0), ylabel=_axis(found, 1))
    if found.method != "pca":  # their axes have no meaning
        axes.set(xticks=[], yticks=[])


def _kept(found: Preservation) -> str:
    if found.share is None or found.chance is None:
        return "."
    return (
        f"; {100 * found.share:.0f}% of the {found.k} nearest neighbours of a trace stay among "
        f"them ({100 * found.chance:.0f}% by chance)."
    )


def _axis(found: Projection, axis: int) -> str:
    name = f"{_NAMES[found.method]} {axis + 1}"
    if found.explained is None or axis >= len(found.explained):
        return name
    return f"{name} ({100 * found.explained[axis]:.0f}% of the variance)"
