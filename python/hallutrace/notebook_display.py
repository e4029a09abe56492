"""How runs, traces and evaluations show themselves in notebooks."""

from __future__ import annotations

import importlib

from hallutrace.errors import HallutraceError

_SHOWS = "hallutrace.viewer.notebook"


class ShownInNotebooks:
    """Gives a class the page of the report as its representation in a notebook.

    What draws the page stands above the classes that are drawn, so it is looked up by name when a
    notebook asks for it. Where it cannot be drawn, a notebook shows ``repr``.
    """

    def _repr_html_(self) -> str | None:
        try:
            shown: str = importlib.import_module(_SHOWS).view(self).html()
        except HallutraceError:
            return None
        return shown
