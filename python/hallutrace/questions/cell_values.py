"""Checks and conversions of single values of a row, and their description in messages."""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Iterable
from decimal import Decimal

from hallutrace.option_names import parameter
from hallutrace.questions.rows import MismatchError, Response

MAX_TOKEN_ID = 2**31 - 1
"""Traces store token ids as int32."""

LONGEST_ID = 500
"""Characters of an id; the header of a shard holds the ids of all its traces."""

EXACT = 2**53
"""Whole numbers from here on may have lost digits as a float."""

WHOLE = re.compile(r"\s*([+-]?\d+)\.0+\s*")
"""A whole number as pandas writes it where a column has gaps: `1969.0`."""


def described(value: object) -> str:
    """A value in words, for messages; at most one line.

    Examples:
        >>> described([1, 2]), described("  "), described(None)
        ('a list of 2', 'empty text', 'nothing')
    """
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
        keys = ", ".join(f"`{shown_name(key)}`" for key in list(value)[:6])
        return f"an object with {keys or 'no keys'}"
    return f"a value of type {type(value).__name__}"


def shortened(text: str, length: int = 40) -> str:
    """The beginning of a text.

    Examples:
        >>> shortened("abcdef", 4)
        'abc…'
    """
    return text if len(text) <= length else text[: length - 1] + "…"


def shown_name(name: object) -> str:
    """The name of a column, for messages; what UTF-8 cannot say is escaped."""
    return shortened(str(name)).encode("utf-8", "backslashreplace").decode("utf-8")


def name_list(names: Iterable[str]) -> str:
    """Names of columns, in words.

    Examples:
        >>> name_list(["id", "question"])
        '`id`, `question`'
    """
    shown = [f"`{shown_name(name)}`" for name in names]
    more = f" and {len(shown) - 12} more" if len(shown) > 12 else ""
    return (", ".join(shown[:12]) + more) or "none"


def check_utf8(text: str, column: str) -> str:
    """The text itself, unless it holds what UTF-8 cannot say (half of a surrogate pair).

    Examples:
        >>> check_utf8("naïve", "answer")
        'naïve'
    """
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise MismatchError(
            f"text in UTF-8 in column `{shown_name(column)}`",
            f"a character or byte that is not UTF-8 at position {error.start}",
            "save the file as UTF-8, as with iconv -f LATIN1 -t UTF-8, or fix the row",
        ) from None
    return text


def number_text(number: int | float | Decimal) -> str:
    """A number as people write it: 1969.0 is 1969, and integers of any size keep their digits.

    Examples:
        >>> number_text(1969.0), number_text(2.5)
        ('1969', '2.5')
    """
    if isinstance(number, int):
        return str(number)
    if isinstance(number, Decimal):
        is_whole = number == number.to_integral_value()
        return str(int(number)) if is_whole else format(number, "f")
    if number.is_integer() and abs(number) < EXACT:
        return str(int(number))
    return single_precision(number) or str(number)


def single_precision(number: float) -> str | None:
    """The shortest text of a number that was stored with 32 bits, where it shows that it was.

    Widened to 64 bits, .1 reads 0.10000000149011612; a number that was stored with 64 bits is
    hardly ever one of 32 and as long as that.

    Examples:
        >>> single_precision(0.10000000149011612)
        '0.1'
    """
    if len(str(number)) <= 10:
        return None
    with_32_bits = struct.Struct("f")
    try:
        if with_32_bits.unpack(with_32_bits.pack(number))[0] != number:
            return None
    except OverflowError:
        return None
    texts = (f"{number:.{digits}g}" for digits in range(6, 10))
    packed = with_32_bits.pack(number)
    return next((text for text in texts if with_32_bits.pack(float(text)) == packed), None)


def identifier(value: object) -> str | None:
    """A value as the text that names something; None where it is missing, blank or no name.

    Args:
        value: text, or a whole number, also as a float (`17.0`, where a column has gaps).

    Raises:
        ValueError: neither; a float so large that it may stand for several whole numbers.

    Examples:
        >>> identifier(17.0), identifier("  ")
        ('17', None)
    """
    if value is None:
        return None
    if isinstance(value, str):
        return value if value.strip() else None
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, float) and value.is_integer() and abs(value) < EXACT:
        return str(int(value))
    raise ValueError


def reference_text(item: object, column: str) -> str:
    r"""One right answer as text; "" where there is none.

    True and false are `yes` and `no`, as questions with such answers are asked (BoolQ). An
    object may hold the text (NarrativeQA). A text that ends in a line `#### 42` is a solution
    whose answer follows the mark (GSM8K).

    Examples:
        >>> reference_text(True, "answer"), reference_text("So it is 7.\n#### 7", "answer")
        ('yes', '7')
    """
    if isinstance(item, dict) and isinstance(item.get("text"), str):
        item = item["text"]
    if item is None:
        return ""
    if isinstance(item, str):
        _, mark, final = item.rpartition("\n#### ")
        return final if mark and "\n" not in final.strip() else item
    if isinstance(item, bool):
        return "yes" if item else "no"
    if isinstance(item, int) or (isinstance(item, float | Decimal) and math.isfinite(item)):
        return number_text(item)
    raise MismatchError(
        f"answers in column `{column}` as text, a number, true, false, or a list of those",
        described(item),
        f"fix the row, map another column with {parameter('answers_column')}, or leave the "
        f"answers out with {parameter('answers_column', 'none')}",
    )


def parse_response(item: object, column: str) -> Response:
    """One answer that exists already.

    Examples:
        >>> parse_response([1, 2], "response")
        (1, 2)
    """
    if isinstance(item, str) and item.strip():
        return check_utf8(item, column)
    if isinstance(item, list) and item and all(is_token_id(number) for number in item):
        return tuple(item)
    got = described(item)
    if isinstance(item, list) and item:
        got = f"a list with {described(next(entry for entry in item if not is_token_id(entry)))}"
    raise MismatchError(
        f"a response in column `{column}` as text or a list of token ids (0 to {MAX_TOKEN_ID})",
        got,
        "write the answer or remove the row",
    )


def is_token_id(value: object) -> bool:
    """Whether a value can be a token id."""
    return type(value) is int and 0 <= value <= MAX_TOKEN_ID
