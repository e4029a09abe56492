"""Lists and objects written in text: as JSON, as Python prints them, as numpy prints them.

A list that is saved in a cell of CSV becomes text, and each tool writes it in its own way:
``["a", "b"]`` (JSON), ``['a', 'b']`` (pandas), ``['a' 'b']`` (arrays of numpy, so also
``datasets`` and Parquet that went through pandas). Python itself reads the last as one text, "ab".
"""

from __future__ import annotations

import ast
import io
import json
import tokenize
import warnings

from hallutrace.questions.cell_values import described
from hallutrace.questions.rows import MismatchError

PAIRS = {"[": "]", "{": "}"}
STARTS = ("['", '["', "{'", '{"', "[[", "[{")
"""Beginnings of a list or an object of texts; what begins so has to be one."""


def parse_list_text(text: str, column: str) -> object:
    """The list or object that a text holds, or the text where it holds none.

    A text between brackets must be one: whether `[a, b]` is a text or a list that was written in
    another way cannot be told.

    Args:
        text: of a cell or a field.
        column: its name, for messages.

    Returns:
        A list, a dict, or the text itself.

    Raises:
        MismatchError: it looks like a list or an object and cannot be read as one.

    Examples:
        >>> parse_list_text("['a' 'b']", "answers"), parse_list_text("plain", "answers")
        (['a', 'b'], 'plain')
    """
    bare = text.strip()
    is_enclosed = len(bare) > 1 and PAIRS.get(bare[0]) == bare[-1]
    if not is_enclosed and not bare.startswith(STARTS):
        return text
    for read in (json.loads, python_literal):
        try:
            value = read(bare)
        # Nested too deep, numbers of thousands of digits, or not written in this way.
        except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
            continue
        if isinstance(value, list | dict):
            return value
    raise MismatchError(
        f"a list or an object in column `{column}`, as the text begins with `{bare[0]}`",
        described(text),
        'write a list as ["one", "two"]; a text between brackets is a list of one text',
    )


def python_literal(text: str) -> object:
    """What Python or numpy printed.

    Raises:
        ValueError, SyntaxError, TypeError, RecursionError, MemoryError: it is something else.
    """
    with warnings.catch_warnings():
        # Python warns of a backslash that escapes nothing, as in text written by hand.
        warnings.simplefilter("ignore")
        return ast.literal_eval(with_commas(text))


def with_commas(text: str) -> str:
    """The literal with a comma between values that stand side by side, as numpy prints them.

    Examples:
        >>> with_commas("['a' 'b']")
        "[ 'a' , 'b' ]"
    """
    values = (tokenize.STRING, tokenize.NUMBER)
    spaces = (tokenize.NL, tokenize.NEWLINE, tokenize.ENDMARKER)
    pieces: list[str] = []
    value_ended = False
    try:
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            if token.type in spaces:
                continue
            if value_ended and (token.type in values or token.string in ("[", "{", "-")):
                pieces.append(",")
            pieces.append(token.string)
            value_ended = token.type in values or token.string in ("]", "}")
    except tokenize.TokenError as error:
        raise SyntaxError(str(error)) from None
    return " ".join(pieces)
