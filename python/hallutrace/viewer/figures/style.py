"""How figures look: widths of columns, text of 8 points, colours told apart by the colour-blind."""

from __future__ import annotations

import textwrap
from typing import Any, Literal, get_args

from hallutrace.escaping import plain

Column = Literal["single", "double"]
COLUMNS = get_args(Column)
WIDTHS: dict[str, float] = {"single": 3.35, "double": 6.9}
"""Inches: 85 and 175 mm, as most journals and conferences have them."""

HALLUCINATED, RIGHT, OTHER, INK, LINE = "#c85a00", "#0072b2", "#80868b", "#1b1b1b", "#e3e3e3"
"""The colours of the page. Classes also differ in their mark: triangles and circles."""

CLASS_MARKS = {1: "^", 0: "o", -1: "s"}
CLASS_COLORS = {1: HALLUCINATED, 0: RIGHT, -1: OTHER}
CLASS_NAMES = {1: "hallucinated", 0: "right", -1: "no label"}

_COLORS = ("#0072b2", "#c85a00", "#009e73", "#cc79a7", "#1b1b1b", "#56b4e9", "#a67c00", "#80868b")
_DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1.5, 1.2)), (0, (6, 1.5, 1.5, 1.5)))
_MARKS = ("o", "^", "s", "D", "v", "P", "X", "*")

# The same stops as colors.js: light to dark, and right over light to hallucinated.
SEQUENTIAL = (
    (253, 234, 159), (220, 197, 112), (176, 163, 118), (132, 130, 122), (90, 99, 113),
    (41, 70, 110), (0, 34, 78),
)  # fmt: skip
DIVERGING = (
    (0, 90, 150), (86, 160, 205), (190, 219, 236), (245, 245, 243), (250, 214, 165),
    (228, 150, 60), (176, 84, 0),
)  # fmt: skip

RULES: dict[str, Any] = {
    "font.size": 8,
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],  # it comes with matplotlib, so it is the same everywhere
    **dict.fromkeys(
        ("axes.labelsize", "axes.titlesize", "xtick.labelsize", "ytick.labelsize",
         "legend.fontsize", "figure.titlesize"), 8,
    ),
    "text.parse_math": False,  # names and tokens are other people's text
    "svg.fonttype": "none",  # text stays text
    "pdf.fonttype": 42,
    "svg.hashsalt": "hallutrace",  # the same bytes each time
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "axes.unicode_minus": False,
    "lines.linewidth": 1.3,
    "lines.markersize": 4,
    "patch.linewidth": 0.6,
    "legend.frameon": False,
    "savefig.dpi": 300,
    "figure.facecolor": "white",
}  # fmt: skip


def line_style(number: int) -> dict[str, Any]:
    """Colour, dashes and mark of the n-th line, so that lines differ without colour too.

    Examples:
        >>> line_style(0)["marker"], line_style(1)["marker"]
        ('o', '^')
    """
    return {
        "color": _COLORS[number % len(_COLORS)],
        "linestyle": _DASHES[number % len(_DASHES)],
        "marker": _MARKS[number % len(_MARKS)],
    }


def wrapped(text: str, letters: int = 40) -> str:
    r"""A long name on several lines; 40 letters are as wide as a single column.

    Examples:
        >>> wrapped("attention-gnn edges=none", 14)
        'attention-gnn\nedges=none'
    """
    return "\n".join(textwrap.wrap(plain(text), letters)) or "?"


def color_map(stops: tuple[tuple[int, int, int], ...]) -> Any:
    """A colour map of matplotlib through some colours.

    Args:
        stops: red, green, blue from 0 to 255, at equal distances.
    """
    from matplotlib.colors import LinearSegmentedColormap

    colors = [tuple(one / 255 for one in stop) for stop in stops]
    return LinearSegmentedColormap.from_list("hallutrace", colors)
