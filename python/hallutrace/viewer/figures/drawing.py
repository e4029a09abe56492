"""A figure of a paper: numbers in a table, and a function that draws just these; and its files."""

from __future__ import annotations

import csv
import io
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from hallutrace import __version__, atomic_files
from hallutrace.atomic_files import storage_errors
from hallutrace.canonical_json import to_utf8
from hallutrace.errors import InputError, MissingExtraError
from hallutrace.escaping import visible
from hallutrace.option_names import parameter
from hallutrace.viewer.figures.style import RULES, WIDTHS, Column
from hallutrace.viewer.viewed_run import ViewedRun

Format = Literal["svg", "pdf", "png"]
FORMATS: tuple[Format, ...] = get_args(Format)

# Nothing of the time of drawing is written, so that the same numbers give the same bytes.
_METADATA: dict[str, dict[str, Any]] = {
    "svg": {"Date": None, "Creator": f"hallutrace {__version__}"},
    "pdf": {"CreationDate": None, "Creator": f"hallutrace {__version__}", "Producer": None},
    "png": {"Software": f"hallutrace {__version__}"},
}


@dataclass(frozen=True)
class FigureRequest:
    """What a figure is made of; which parts of it count is told in the help of each figure.

    Attributes:
        viewed: the run, with its evaluation; None where no run is given.
        label: of a protocol.
        detectors: labels of rows of the evaluation; of ``training`` the folder of a detector.
        trace: key of a trace.
        layer: number in the model.
        token: whose hidden states a map is of.
        marginal: name of an exact marginal.
        shown: what of it.
        metric: of a comparison.
        method: of a map.
        seed: of a map.
        top_k: edges of each token that are drawn.
    """

    viewed: ViewedRun | None = None
    label: str | None = None
    detectors: tuple[str, ...] = ()
    trace: str | None = None
    layer: int | None = None
    token: str | None = None
    marginal: str | None = None
    shown: str | None = None
    metric: str = "auroc"
    method: str = "pca"
    seed: int = 0
    top_k: int = 3

    @property
    def run(self) -> ViewedRun:
        """The run.

        Raises:
            InputError: none is given.
        """
        if self.viewed is None:
            raise InputError("Expected a run for this figure, got none - give its folder as RUN")
        return self.viewed


@dataclass(frozen=True)
class PaperFigure:
    """A figure that can be written.

    Attributes:
        caption: a sentence that says what it shows, and with how many traces.
        columns: names of the columns of its numbers.
        rows: all numbers that are drawn, and nothing else.
        draw: draws them on a figure of matplotlib of the chosen width; it may set the height.
        height: of the figure in inches.
        column: width that suits it.
    """

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    draw: Callable[[Any], None]
    height: float = 2.6
    column: Column = "single"

    def write(self, path: Path, form: Format, column: Column | None = None) -> tuple[Path, Path]:
        """Writes the picture, and its numbers as CSV beside it; files that are there are replaced.

        Args:
            path: of the picture; the numbers have the same name and end in ``.csv``.
            form: of the picture.
            column: its width; None is the one that suits it.

        Returns:
            Paths of picture and numbers.

        Raises:
            MissingExtraError: matplotlib is not installed.
            StorageError: a file cannot be written.
        """
        picture = self.picture(form, column)
        table = path.with_suffix(".csv")
        with storage_errors(f"write {path}", f"choose another {parameter('out')}"):
            path.parent.mkdir(parents=True, exist_ok=True)
            atomic_files.write(table, to_utf8(self.csv()))
            atomic_files.write(path, picture)
        return path, table

    def picture(self, form: Format, column: Column | None = None) -> bytes:
        """The picture; the same numbers give the same bytes with the same version of matplotlib.

        Args:
            form: svg, pdf or png.
            column: its width; None is the one that suits it.

        Raises:
            MissingExtraError: matplotlib is not installed.
        """
        try:
            import matplotlib
            from matplotlib.figure import Figure
        except ImportError:
            raise MissingExtraError.of("matplotlib", "figures", "figures") from None
        out = io.BytesIO()
        with matplotlib.rc_context(), warnings.catch_warnings():
            # Characters that the font lacks are text all the same in SVG, and boxes elsewhere.
            warnings.filterwarnings("ignore", message="(?s)Glyph .* missing from font")
            matplotlib.rcdefaults()
            matplotlib.rcParams.update(RULES)
            size = (WIDTHS[column or self.column], self.height)
            figure = Figure(figsize=size, layout="constrained")
            self.draw(figure)
            figure.savefig(out, format=form, metadata=_METADATA[form])
        return out.getvalue()

    def csv(self) -> str:
        """The numbers as CSV, each with all its digits; an empty cell is no number."""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(self.columns)
        writer.writerows([_cell(value) for value in row] for row in self.rows)
        return out.getvalue()


def _cell(value: Any) -> Any:
    if value is None or (isinstance(value, (float, np.floating)) and np.isnan(value)):
        return ""
    if isinstance(value, np.float32):
        return str(value)  # the shortest digits that give it again
    if isinstance(value, (float, np.floating)):
        return repr(float(value))
    return visible(value) if isinstance(value, str) else value
