"""Every view is read and used: by axe-core's rules, by keyboard alone, on paper, in the dark."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from browsers import assert_fits, serious_violations

VIEWS = ["run", "layers", "trace", "map", "detectors", "errors"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_serious_violation(scheme: str, demo_report: Path, opened: Any) -> None:
    # What axe-core runs in the page is text, which the page's own policy forbids.
    shown = opened(demo_report, color_scheme=scheme, bypass_csp=True)
    found = serious_violations(shown, VIEWS)
    assert not found, "\n".join(found)


def test_every_view_is_reached_by_keyboard(demo_report: Path, opened: Any) -> None:
    shown = opened(demo_report)
    reached = []
    for _ in VIEWS:
        for _ in range(12):
            shown.page.keyboard.press("Tab")
            name = shown.page.evaluate(
                "() => document.activeElement.closest('nav') && document.activeElement.innerText"
            )
            if name and name not in reached:
                break
        shown.page.keyboard.press("Enter")
        shown.settled()
        reached.append(name)
        current = shown.page.locator("nav.tabs [aria-current]").inner_text()
        assert current == name
    assert len(set(reached)) == len(VIEWS)


def test_the_address_brings_back_what_was_seen(demo_report: Path, opened: Any) -> None:
    shown = opened(demo_report)
    shown.show(view="layers", marginal="previous")
    address = shown.page.url
    text = shown.page.locator("main").inner_text()
    again = opened(demo_report)
    again.page.goto(address)
    again.page.reload()
    again.settled()
    assert again.page.locator("main").inner_text() == text


@pytest.mark.parametrize("width", [360, 1280])
def test_no_view_is_wider_than_the_window(width: int, demo_report: Path, opened: Any) -> None:
    shown = opened(demo_report, viewport={"width": width, "height": 800})
    assert_fits(shown, VIEWS)


def test_paper_has_every_view(demo_report: Path, opened: Any) -> None:
    shown = opened(demo_report)
    shown.page.emulate_media(media="print")
    shown.show(print="all")
    titles = shown.page.locator("main > section.printed > h2").all_inner_texts()
    assert len(titles) == len(VIEWS)
    assert not shown.page.locator("nav.tabs").is_visible()


def test_classes_have_shapes_and_names_beside_their_colours(demo_report: Path, opened: Any) -> None:
    shown = opened(demo_report)
    shown.page.emulate_media(forced_colors="active")
    text = shown.page.locator("main").inner_text()
    assert "▲" in text or shown.page.locator("main svg path[d^=M]").count()
    assert "hallucinated" in text and "right" in text
