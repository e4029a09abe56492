"""The page as one file: modules bound together, and nothing of a run that can end an element."""

from __future__ import annotations

import re

import pytest

from hallutrace.viewer import page
from hallutrace.viewer.page import browser_script, browser_style, content_security_policy

LIMIT = 250_000  # bytes of script and style in the wheel


def test_the_browser_part_is_small() -> None:
    assert len((browser_script() + browser_style()).encode()) <= LIMIT


def test_the_script_holds_no_end_of_its_element() -> None:
    assert "</script" not in browser_script().lower()
    assert "</style" not in browser_style().lower()
    assert "\r" not in browser_script() + browser_style()


def test_no_module_makes_elements_from_text() -> None:
    script = browser_script()
    for name in (
        "innerHTML",
        "outerHTML",
        "insertAdjacentHTML",
        "document.write",
        "eval(",
        "new Function",
    ):
        assert name not in script


def test_nothing_is_named_elsewhere() -> None:
    addresses = set(re.findall(r"https?://[^\s\"'`]+", browser_script() + browser_style()))
    assert addresses == {"http://www.w3.org/2000/svg"}


def test_settings_cannot_end_their_element() -> None:
    text = "".join(page.page({"title": "</script><script>alert(1)</script>&"}))
    assert "<script>alert" not in text
    assert text.count("<script") == 2


def test_the_policy_allows_this_page_alone() -> None:
    assert "unsafe" not in content_security_policy(served=True)
    assert "connect-src" not in content_security_policy()


def test_comments_and_indentation_stay_out_of_the_page() -> None:
    text = "// one\nconst a = 1; // two\n\n/**\n * three\n */\nif (a) {\n  const b = `//`;\n}\n"
    lean = page._without_comments("x.js", text)
    assert lean == "const a = 1; // two\nif (a) {\nconst b = `//`;\n}\n"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("const a = `one\n  two`;\n", "Expected texts in backticks on one line"),
        ("export default 1;\n", "export default 1;"),
        ('import x from "./a.js";\n', "import x from"),
    ],
)
def test_what_cannot_be_bound_is_refused(text: str, told: str) -> None:
    with pytest.raises(ValueError, match=re.escape(told)):
        page._as_function("x.js", text)
