"""A real Chromium without a network, for what the page shows.

Debian's chromium is driven by playwright. Where either is missing, the tests skip and say so.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = (
    os.environ.get("HALLUTRACE_CHROMIUM")
    or shutil.which("chromium")
    or shutil.which("google-chrome")
)
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]


@contextmanager
def chromium() -> Iterator[Any]:
    """A browser of playwright's synchronous interface."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("no chromium on PATH; HALLUTRACE_CHROMIUM names another")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        try:
            yield browser
        finally:
            browser.close()


class Opened:
    """A page of a browser, which fails the test for an error in it or a request to elsewhere.

    Args:
        browser: of :func:`chromium`.
        address: a file, or the address of a server on this machine.
        options: of a context of playwright, such as ``color_scheme`` or ``viewport``.
    """

    def __init__(self, browser: Any, address: Path | str, **options: Any) -> None:
        self.address = address.resolve().as_uri() if isinstance(address, Path) else address
        self.errors: list[str] = []
        self.requests: list[str] = []
        self._context = browser.new_context(**options)
        self.page = self._context.new_page()
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("console", lambda one: one.type == "error" and self.errors.append(one.text))
        self.page.on("request", lambda one: self.requests.append(one.url))
        origin = self.address.split("#")[0] if isinstance(address, Path) else self._origin()
        self.page.route(
            lambda url: not (url.startswith((origin, "data:", "blob:"))),
            lambda route: route.abort(),
        )
        self._allowed = (origin, "data:", "blob:")
        self.page.goto(self.address)
        self.settled()

    def _origin(self) -> str:
        return "/".join(self.address.split("/")[:3]) + "/"

    def settled(self) -> None:
        """Waits until nothing is being loaded.

        Not by ``wait_for_function``, which evaluates text in the page: its policy forbids that.
        """
        for _ in range(1500):
            if self.page.evaluate(
                "() => document.documentElement.dataset.ready"
                " && !document.querySelector('[aria-busy]')"
            ):
                return
            self.page.wait_for_timeout(20)
        raise TimeoutError("the page was still loading after 30 seconds")

    def show(self, **state: Any) -> None:
        """Changes what the address says, as a link would."""
        self.page.evaluate(
            "changes => { const next = new URLSearchParams(location.hash.slice(1));"
            "for (const [k, v] of Object.entries(changes)) next.set(k, v);"
            "location.hash = next; }",
            {name: str(value) for name, value in state.items()},
        )
        self.page.wait_for_timeout(20)
        self.settled()

    def close(self) -> None:
        """Closes the page, and fails for what went wrong in it."""
        self._context.close()
        assert not self.errors, self.errors
        outside = [one for one in self.requests if not one.startswith(self._allowed)]
        assert not outside, f"requests left the page: {outside}"


def assert_fits(shown: Opened, views: Iterable[str]) -> None:
    """No view is wider than the window."""
    for view in views:
        shown.show(view=view)
        beyond = shown.page.evaluate("() => document.documentElement.scrollWidth - innerWidth")
        assert beyond <= 0, view


def serious_violations(shown: Opened, views: Iterable[str]) -> list[str]:
    """Serious and critical violations of axe-core's rules in views, each with where it is."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    found = []
    for view in views:
        shown.show(view=view)
        for one in axe.run(shown.page).response["violations"]:
            if one["impact"] in ("serious", "critical"):
                nodes = [node["html"][:200] for node in one["nodes"][:3]]
                found.append(f"{view}: {one['id']}: {nodes}")
    return found
