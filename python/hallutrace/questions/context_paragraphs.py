"""The context of a row: a text, or several paragraphs that make one."""

from __future__ import annotations

from collections.abc import Iterable

from hallutrace.option_names import parameter
from hallutrace.questions.cell_values import described
from hallutrace.questions.rows import MismatchError

TEXTS = ("text", "paragraph_text", "sentences", "contexts")
"""What holds the text of a paragraph."""


def context_text(value: object, column: str) -> str:
    """A context as one text: paragraphs with an empty line between them, each after its title.

    HotpotQA's object of titles and sentences, its list of pairs of them, PubMedQA's `contexts`,
    and lists of texts or of objects with `title` and `text` are read.

    Raises:
        MismatchError: it holds something else.

    Examples:
        >>> context_text({"title": ["Paris"], "sentences": [["It is", "a city."]]}, "context")
        'Paris: It is a city.'
    """
    if isinstance(value, str):
        return value
    paragraphs = _paragraphs(value)
    if paragraphs is None:
        raise MismatchError(
            f"text, or paragraphs of text, as context in column `{column}`",
            described(value),
            f"fix the row, map another column with {parameter('context_column')}, or leave the "
            f"context out with {parameter('context_column', 'none')}",
        )
    return "\n\n".join(paragraph for paragraph in paragraphs if paragraph.strip())


def _paragraphs(value: object) -> list[str] | None:
    """The paragraphs in a value; None where it is of another kind."""
    if isinstance(value, dict):
        texts = next((value[name] for name in TEXTS if name in value), None)
        titles = value.get("title")
        if isinstance(titles, list) and isinstance(texts, list) and len(titles) == len(texts):
            return _all(_titled(title, text) for title, text in zip(titles, texts, strict=True))
        if isinstance(titles, list):
            return None
        if isinstance(texts, list) and not titles:
            return _all(_joined(text) for text in texts)
        return _all([_titled(titles, texts)])
    if not isinstance(value, list):
        return None
    if all(isinstance(item, list) and len(item) == 2 for item in value):
        return _all(_titled(title, text) for title, text in value)
    if all(isinstance(item, dict) for item in value):
        parts = [_paragraphs(item) for item in value]
        return None if None in parts else [text for part in parts if part for text in part]
    return _all(_joined(item) for item in value)


def _all(texts: Iterable[str | None]) -> list[str] | None:
    """The texts, or None where one of them is none."""
    whole = list(texts)
    found = [text for text in whole if text is not None]
    return found if len(found) == len(whole) else None


def _titled(title: object, text: object) -> str | None:
    body = _joined(text)
    if body is None or not (title is None or isinstance(title, str)):
        return None
    return f"{title}: {body}" if title else body


def _joined(text: object) -> str | None:
    """A text, or sentences as one text: those of HotpotQA bring their own spaces."""
    if isinstance(text, str):
        return text.strip()
    if isinstance(text, list) and all(isinstance(one, str) for one in text):
        return " ".join(one.strip() for one in text)
    return None
