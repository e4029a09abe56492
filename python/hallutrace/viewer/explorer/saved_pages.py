"""A view that is looked at, as one HTML file that needs no server."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hallutrace.errors import InputError, NotInRunError
from hallutrace.viewer.explorer.runs import OpenRuns
from hallutrace.viewer.page import page
from hallutrace.viewer.providers import key_of

LARGEST_PAGE = 64_000_000  # bytes of its payloads


def saved_page(
    runs: OpenRuns,
    run: str,
    wanted: Sequence[tuple[str, dict[str, str]]],
    state: Mapping[str, str],
    footer: str,
) -> str:
    """The page with the payloads that a view has used.

    Args:
        runs: where the run is.
        run: its id.
        wanted: name and parameters of each payload; what the run does not have is left out, and
            the saved page says so as the view does.
        state: what the address of the page said.
        footer: of the page.

    Raises:
        NotInRunError: no such run.
        InputError: more data than a page should hold.

    Examples:
        >>> from hallutrace.viewer.explorer.catalog import Catalog
        >>> catalog = Catalog([run])
        >>> text = saved_page(OpenRuns(catalog), *catalog.runs, [("run", {})], {"view": "run"}, "")
        >>> text.count('data-key="run"')
        1
    """
    title, size = runs.viewed(run).store.folder.resolve().name, 0
    payloads = []
    for name, parameters in wanted:
        try:
            content = runs.payload(run, name, parameters).content
        except NotInRunError:
            continue
        size += len(content)
        if size > LARGEST_PAGE:
            raise InputError(
                f"Expected at most {LARGEST_PAGE / 1e6:.0f} MB of data on a page, got more - show "
                "less of the run, or use `hallutrace report`"
            )
        payloads.append((key_of(name, parameters), content))
    settings = {"title": title, "served": False, "footer": footer, "state": dict(state)}
    return "".join(page(settings, payloads))
