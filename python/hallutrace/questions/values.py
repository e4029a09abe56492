"""Single values of a row: what they may be, and what to say of those that may not."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable

from hallutrace.questions.rows import Response, UnplacedError

UNKNOWN_ANSWER = "<unk>"
"""What TriviaQA's test split holds for answers that are kept secret: no reference."""

MAX_TOKEN_ID = 2**31 - 1
"""Traces store token ids as int32."""


def kind(value: object) -> str:
    """A value in words, for messages; never longer than a line."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        shown = str(value) if isinstance(value, float) or abs(value) < 10**20 else "a huge one"
        return f"the number {shown}"
    if isinstance(value, str):
        return f"the text {shortened(value)!r}" if value.strip() else "empty text"
    if isinstance(value, list | tuple):
        return f"a list of {len(value)}" if value else "an empty list"
    if isinstance(value, dict):
        return f"an object with {', '.join(f'`{key}`' for key in list(value)[:6]) or 'no keys'}"
    return f"a value of type {type(value).__name__}"


def shortened(text: str, length: int = 40) -> str:
    """The beginning of a text."""
    return text if len(text) <= length else text[: length - 1] + "…"


def checked(text: str, column: str) -> str:
    """The text itself, unless it holds what UTF-8 cannot say (half of a surrogate pair)."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise UnplacedError(
            f"text in UTF-8 in column `{column}`",
            f"a character or byte that is none at position {error.start}",
            "save the file as UTF-8 or mend the row",
        ) from None
    return text


def json_cell(cell: str, column: str) -> object:
    """What a cell that looks like a list or an object holds."""
    try:
        return json.loads(cell)
    except (ValueError, RecursionError):
        raise UnplacedError(
            f"JSON in column `{column}`, as the cell begins with `{cell.lstrip()[0]}`",
            kind(cell),
            'write it as in ["one", "two"]',
        ) from None


def unpacked(value: dict[str, object], column: str) -> list[object]:
    """The right answers in an object: TriviaQA's value and aliases, or SQuAD's texts."""
    if "value" in value:
        first, more = value["value"], value.get("aliases")
        aliases = more if isinstance(more, list) else [more]
        return [item for item in (first, *aliases) if item != UNKNOWN_ANSWER]
    if "text" in value:
        texts = value["text"]
        return texts if isinstance(texts, list) else [texts]
    raise UnplacedError(
        f"answers in column `{column}` as an object with `value` and `aliases`, or `text`",
        kind(value),
        "write a list of texts, or map another column with --answers-column",
    )


def reference(item: object, column: str) -> str:
    """One right answer as text; "" where there is none."""
    if item is None:
        return ""
    if isinstance(item, str):
        return item
    if isinstance(item, int | float) and not isinstance(item, bool) and math.isfinite(item):
        return str(item)
    raise UnplacedError(
        f"answers in column `{column}` as text, a number or a list of those",
        kind(item),
        "mend the row, or map another column with --answers-column",
    )


def response(item: object, column: str) -> Response:
    """One answer that exists already."""
    if isinstance(item, str) and item.strip():
        return checked(item, column)
    if isinstance(item, list) and item and all(is_token_id(number) for number in item):
        return tuple(item)
    got = kind(item)
    if isinstance(item, list) and item:
        got = f"a list with {kind(next(entry for entry in item if not is_token_id(entry)))}"
    raise UnplacedError(
        f"a response in column `{column}` as text or a list of token ids (0 to {MAX_TOKEN_ID})",
        got,
        "write the answer or remove the row",
    )


def is_token_id(value: object) -> bool:
    """Whether a value can be a token id."""
    return type(value) is int and 0 <= value <= MAX_TOKEN_ID


def listed(names: Iterable[str]) -> str:
    """Names of columns, in words."""
    shown = [f"`{shortened(name)}`" for name in names]
    more = f" and {len(shown) - 12} more" if len(shown) > 12 else ""
    return (", ".join(shown[:12]) + more) or "none"
