"""Runs, traces, evaluations and edge lists in a notebook, in a frame that nbconvert keeps."""

from __future__ import annotations

import html
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from hallutrace import atomic_files
from hallutrace.atomic_files import storage_errors
from hallutrace.attention.edges import EdgeList
from hallutrace.errors import InputError
from hallutrace.store.reader import TraceStore
from hallutrace.store.trace import Trace
from hallutrace.viewer.data.trace_parts import trace_parts
from hallutrace.viewer.edges_picture import edges_picture
from hallutrace.viewer.page import page
from hallutrace.viewer.providers import key_of, payload_of
from hallutrace.viewer.report.content import Limits, Report
from hallutrace.viewer.report.formats import FOOTER, to_html
from hallutrace.viewer.viewed_run import ViewedRun, key_text

HEIGHT = 720  # pixels
OF_A_RUN = Limits(listed=5_000, worst=200, with_edges=5, edge_bytes=500_000, trace_bytes=300_000)
"""How much of a run a cell carries; `hallutrace report` carries more."""

Pieces = Callable[[], Iterator[bytes]]


@dataclass(frozen=True)
class Page:
    """A page that a notebook shows.

    Attributes:
        pieces: gives the page as HTML, in pieces.
        height: of the frame, in pixels.

    Examples:
        >>> shown = view(hallutrace.open(run))
        >>> shown.save("run.html")
        >>> shown.html()[:7]
        '<iframe'
    """

    pieces: Pieces
    height: int = HEIGHT

    def html(self) -> str:
        """The page in an ``iframe srcdoc``: no other file, no server, no script of the notebook."""
        text = html.escape(b"".join(self.pieces()).decode("utf-8"), quote=True)
        return (
            f'<iframe srcdoc="{text}" title="hallutrace" sandbox="allow-scripts allow-downloads" '
            f'style="width:100%;height:{self.height}px;border:0"></iframe>'
        )

    def _repr_html_(self) -> str:
        return self.html()

    def save(self, path: str | Path) -> None:
        """Writes the page as an HTML file that needs no other.

        Raises:
            StorageError: the file cannot be written.
        """
        with storage_errors(f"write {path}", "choose another path"):
            atomic_files.write_pieces(Path(path), self.pieces())


def view(value: Any, *, height: int = HEIGHT) -> Page:
    """Shows a run, a trace, an evaluation or an edge list in a notebook.

    The last value of a cell shows itself the same way.

    Args:
        value: a :class:`hallutrace.TraceStore`, a :class:`hallutrace.Trace`, an
            :class:`hallutrace.EdgeList`, or an evaluation of
            :func:`hallutrace.detect.evaluation.evaluate`.
        height: of the frame, in pixels.

    Raises:
        InputError: something else.

    Examples:
        >>> view(hallutrace.open(run)[0]).html()[:7]
        '<iframe'
    """
    from hallutrace.detect.evaluation.protocol import Evaluation

    if isinstance(value, TraceStore):
        return Page(lambda: to_html(Report(ViewedRun(value), OF_A_RUN)), height)
    if isinstance(value, Trace):
        return Page(lambda: _trace_page(value), height)
    if isinstance(value, EdgeList):
        return Page(lambda: iter([edges_picture(value).encode()]), height)
    if isinstance(value, Evaluation):
        return Page(lambda: _evaluation_page(value), height)
    raise InputError(
        f"Expected a run, a trace, an evaluation or an edge list to show, got "
        f"{type(value).__name__} - pass what hallutrace.open or hallutrace.trace gives"
    )


def _trace_page(trace: Trace) -> Iterator[bytes]:
    viewed = ViewedRun(cast(TraceStore, _OneTrace(trace)))
    key = key_text(trace.id, trace.sample)
    payloads = (
        (key_of(name, parameters), payload_of(viewed, name, parameters))
        for name, parameters in trace_parts(viewed, key)
    )
    settings = {"title": trace.id, "served": False, "footer": FOOTER}
    return (piece.encode("utf-8") for piece in page(settings, payloads))


def _evaluation_page(evaluation: Any) -> Iterator[bytes]:
    from hallutrace.detect.evaluation import write_report

    examples = evaluation.data.test_run
    with tempfile.TemporaryDirectory(prefix="hallutrace-") as folder:
        write_report(evaluation, examples.protocol, Path(folder))
        viewed = ViewedRun(examples.store, Path(folder))
        names = ("detectors", "traces")
        payloads = [(key_of(name), payload_of(viewed, name, {})) for name in names]
    settings = {"title": "Evaluation", "served": False, "footer": FOOTER}
    return (piece.encode("utf-8") for piece in page(settings, payloads))


class _OneTrace:
    """What the views ask of a run, of one trace that may be in no run."""

    def __init__(self, trace: Trace) -> None:
        self._trace = trace
        self.manifest = trace.manifest

    def labels(self) -> list[str]:
        return []

    def keys(self) -> list[tuple[str, int]]:
        return [(self._trace.id, self._trace.sample)]

    def __len__(self) -> int:
        return 1

    def __getitem__(self, position: int) -> Trace:
        return self._trace
