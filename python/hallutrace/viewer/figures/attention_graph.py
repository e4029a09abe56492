"""The attention of one layer in one trace: tokens on a line, the strongest edges as arcs."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hallutrace.errors import InputError
from hallutrace.escaping import plain
from hallutrace.option_names import parameter
from hallutrace.store.trace import Trace
from hallutrace.viewer.figures.drawing import FigureRequest, PaperFigure
from hallutrace.viewer.figures.style import CLASS_COLORS, CLASS_NAMES, INK, OTHER
from hallutrace.viewer.token_texts import ids_as_text
from hallutrace.viewer.viewed_run import NO_LABEL, ViewedRun

MOST_TOKENS = 400
_NAMED = 70  # tokens that fit beside each other at 8 points in the wide column
_LETTERS = 14  # of a token


@dataclass(frozen=True)
class TokenEdges:
    """The edges that are drawn, the queries in order, the strongest of each first.

    Attributes:
        queries: int64 [edges], position of the attending token.
        keys: int64 [edges], position of the attended token.
        weights: float32 [edges].
    """

    queries: NDArray[np.int64]
    keys: NDArray[np.int64]
    weights: NDArray[np.float32]


def attention_graph(request: FigureRequest) -> PaperFigure:
    """The strongest edges of each token in one layer, but for those to the token itself.

    Args:
        request: run, ``trace`` (None is the first hallucinated one, or the first), ``layer`` (None
            is the middle one), ``label`` (colours the answer), ``top_k``.

    Raises:
        NotInRunError: no such trace or labels.
        InputError: no such layer, a ``top_k`` below 1, or too many tokens to draw.
    """
    viewed = request.run
    if request.top_k < 1:
        raise InputError(
            f"Expected a number of edges >= 1, got {request.top_k} - change {parameter('top_k')}"
        )
    labels = viewed.label_values(request.label) if request.label or viewed.labels else None
    position = _position(viewed, request.trace, labels)
    trace = _short(viewed.store[position])
    layer = trace.layers[len(trace.layers) // 2] if request.layer is None else request.layer
    edges = strongest_edges(trace, layer, request.top_k)
    label = NO_LABEL if labels is None else int(labels[position])
    texts = viewed.texts_of or ids_as_text
    tokens = [plain(one).strip()[:_LETTERS] or "␣" for one in texts(trace.tokens.tolist())]
    begin, chances = trace.prompt_length, np.exp(trace.logprob.astype(np.float64))

    def draw(figure: Any) -> None:
        color = CLASS_COLORS[label] if labels is not None else INK
        _draw(figure, tokens, edges, chances, begin, color)

    rows = list(_rows(tokens, edges, chances, begin))
    columns = ("query", "key", "query_token", "key_token", "weight", "query_probability")
    caption = (
        f"Layer {layer}: the {request.top_k} largest attention weights of each token, from key to "
        "query, without those to the token itself, and the probability of each answer token; one "
        f"trace, {plain(viewed.key_texts[position])} ({CLASS_NAMES[label]}): "
        f"{plain(trace.question)}"
    )
    return PaperFigure(caption, columns, rows, draw, 2.7, "double")


def _short(trace: Trace) -> Trace:
    if len(trace.tokens) > MOST_TOKENS:
        raise InputError(
            f"Expected a trace of at most {MOST_TOKENS} tokens, got one of "
            f"{len(trace.tokens):,} - `hallutrace report` shows longer ones"
        )
    return trace


def _rows(
    tokens: list[str], edges: TokenEdges, chances: NDArray[np.float64], begin: int
) -> Iterator[tuple[Any, ...]]:
    """A row for each edge; tokens of the prompt have no probability."""
    for query, key, weight in zip(
        edges.queries.tolist(), edges.keys.tolist(), edges.weights, strict=True
    ):
        chance = float(chances[query - begin]) if query >= begin else None
        yield query, key, tokens[query], tokens[key], weight, chance


def _position(viewed: ViewedRun, key: str | None, labels: NDArray[np.int8] | None) -> int:
    if key is not None:
        return viewed.position(key)
    if not len(viewed.store):
        raise InputError("Expected a run with traces, got none - `hallutrace extract` makes them")
    wrong = np.flatnonzero(labels == 1) if labels is not None else np.zeros(0, np.int64)
    return int(wrong[0]) if wrong.size else 0


def strongest_edges(trace: Trace, layer: int, count: int) -> TokenEdges:
    """The largest weights of each query; of heads that were kept apart the mean.

    Args:
        trace: of a run.
        layer: number in the model.
        count: edges of each query.

    Raises:
        InputError: the attention of this layer was not captured.
    """
    kept = trace.layer(layer)
    tokens = len(trace.tokens)
    cells, of = np.unique(kept.queries * tokens + kept.keys, return_inverse=True)
    sums = np.bincount(of, kept.weights.astype(np.float64), minlength=len(cells))
    weights = (sums / kept.shape[0]).astype(np.float32)
    queries, keys = cells // tokens, cells % tokens
    order = np.lexsort((keys, -weights, queries))
    order = order[keys[order] != queries[order]]
    _, first, times = np.unique(queries[order], return_index=True, return_counts=True)
    rank = np.arange(len(order)) - np.repeat(first, times)
    chosen = order[rank < count]
    return TokenEdges(queries[chosen], keys[chosen], weights[chosen])


def _draw(
    figure: Any,
    tokens: list[str],
    edges: TokenEdges,
    chances: NDArray[np.float64],
    begin: int,
    color: str,
) -> None:
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path

    top, bars = figure.subplots(2, 1, sharex=True, height_ratios=[5, 1])
    curve = [Path.MOVETO, Path.CURVE4, Path.CURVE4, Path.CURVE4]
    for query, key, weight in zip(edges.queries, edges.keys, edges.weights, strict=True):
        height = 1.3 * math.sqrt(query - key)
        path = Path([(key, 0), (key, height), (query, height), (query, 0)], curve)
        shade = color if query >= begin else OTHER
        width, alpha = 0.3 + 2.2 * float(weight), min(1.0, 0.15 + float(weight))
        top.add_patch(PathPatch(path, fill=False, edgecolor=shade, linewidth=width, alpha=alpha))
    longest = math.sqrt(int((edges.queries - edges.keys).max(initial=1)))
    top.set(xlim=(-0.8, len(tokens) - 0.2), ylim=(0, longest + 0.1))
    bars.bar(np.arange(begin, begin + len(chances)), chances, width=0.6, color=color)
    bars.set(ylim=(0, 1), yticks=[0, 1])
    bars.set_ylabel("prob.")
    every = -(-len(tokens) // _NAMED)
    bars.set_xticks(range(0, len(tokens), every), tokens[::every], rotation=90)
    for place, text in zip(range(0, len(tokens), every), bars.get_xticklabels(), strict=True):
        text.set(color=color if place >= begin else INK, fontfamily="monospace")
    top.set_axis_off()
    bars.tick_params(axis="x", length=0)
