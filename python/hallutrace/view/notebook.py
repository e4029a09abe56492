"""Runs, traces and evaluations in a notebook: the page in a frame, which nbconvert keeps."""

from __future__ import annotations

import html
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from hallutrace import atomic_files
from hallutrace.atomic_files import storage_errors

HEIGHT = 720  # pixels
Pieces = Callable[[], Iterator[str]]


@dataclass(frozen=True)
class Page:
    """A page that a notebook shows.

    Attributes:
        pieces: gives the HTML of the page, in pieces.
        height: of the frame, in pixels.

    Examples:
        >>> shown = hallutrace.view.notebook.view(hallutrace.open(run))
        >>> shown.html()[:7]
        '<iframe'
    """

    pieces: Pieces
    height: int = HEIGHT

    def html(self) -> str:
        """The page in an ``iframe srcdoc``: no other file, no server, no script of the notebook."""
        page = html.escape("".join(self.pieces()), quote=True)
        return (
            f'<iframe srcdoc="{page}" title="hallutrace" sandbox="allow-scripts allow-downloads" '
            f'style="width:100%;height:{self.height}px;border:0"></iframe>'
        )

    def _repr_html_(self) -> str:
        return self.html()

    def save(self, path: str | Path) -> None:
        """Writes the page as an HTML file.

        Raises:
            StorageError: the file cannot be written.
        """
        with storage_errors(f"write {path}", "choose another path"):
            atomic_files.write_pieces(
                Path(path), (piece.encode("utf-8") for piece in self.pieces())
            )
