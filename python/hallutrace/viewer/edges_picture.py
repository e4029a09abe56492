"""An edge list as a small picture: who looks at whom, as SVG without a script."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hallutrace.attention.edges import EdgeList

CELLS = 96  # of a side, at most
SIDE = 384  # pixels
STRONGEST = 10


def edges_picture(edges: EdgeList) -> str:
    """HTML with the edges as a raster, and the strongest of them in a table.

    Down are the tokens that look, across those that they look at. A cell that stands for several
    has the largest weight of all heads. Darker is more; the colour is that of text around it.

    Args:
        edges: of one layer.

    Examples:
        >>> edges = hallutrace.sparsify(np.float32([[1, 0], [0.25, 0.75]]), top_k=1)
        >>> text = edges_picture(edges)
        >>> text.count("<rect"), "2 edges" in text
        (3, True)
    """
    heads, queries, keys = edges.shape
    weights, scale = _raster(edges)
    rows, columns = weights.shape
    size = SIDE / max(rows, columns, 1)
    marks = "".join(
        f'<rect x="{column * size:.2f}" y="{row * size:.2f}" width="{size:.2f}" '
        f'height="{size:.2f}" opacity="{weights[row, column] / scale:.3f}"/>'
        for row, column in zip(*(one.tolist() for one in np.nonzero(weights)), strict=True)
    )
    frame = (
        f'<rect width="{columns * size:.0f}" height="{rows * size:.0f}" fill="none" '
        'stroke="currentColor" opacity="0.3"/>'
    )
    sentence = (
        f"{len(edges):,} edges of {queries:,} queries (down) to {keys:,} keys (across)"
        f"{f', {heads} heads' if heads > 1 else ''}; the darkest is {scale:.3g}."
    )
    return (
        f'<figure style="margin:0;font:13px system-ui,sans-serif"><figcaption>{sentence}'
        f'</figcaption><svg viewBox="-1 -1 {SIDE + 2} {SIDE + 2}" width="{SIDE}" '
        f'fill="currentColor" role="img" aria-label="{sentence}">{frame}{marks}</svg>'
        f"{_strongest(edges)}</figure>"
    )


def _raster(edges: EdgeList) -> tuple[NDArray[np.float32], float]:
    """The largest weight of each cell [rows, columns], and of all."""
    _, queries, keys = edges.shape
    step = max(1, -(-max(queries, keys) // CELLS))
    cells = np.zeros((-(-queries // step), -(-keys // step)), np.float32)
    row = (edges.queries - edges.first_query) // step
    np.maximum.at(cells, (row, edges.keys // step), edges.weights)
    return cells, float(cells.max(initial=0)) or 1.0


def _strongest(edges: EdgeList) -> str:
    order = np.argsort(-edges.weights, kind="stable")[:STRONGEST]
    rows = "".join(
        f"<tr><td>{edges.queries[one]}</td><td>{edges.keys[one]}</td>"
        f"<td>{edges.weights[one]:.4f}</td></tr>"
        for one in order.tolist()
    )
    return (
        f"<details><summary>The {len(order)} strongest</summary><table><thead><tr><th>query</th>"
        f"<th>key</th><th>weight</th></tr></thead><tbody>{rows}</tbody></table></details>"
    )
