"""What is known of a given response: the spans that somebody labelled in it, and what made it."""

from __future__ import annotations

import math
from collections.abc import Iterator

from hallutrace.option_names import parameter
from hallutrace.questions.cell_values import check_utf8, described
from hallutrace.questions.lists_in_text import parse_list_text
from hallutrace.questions.rows import Generator, MismatchError, Response, Span

LABELS = ("label", "label_type", "type")
"""What holds the label of a span; RAGTruth has `label_type`."""


def spans_of(value: object, column: str, responses: tuple[Response, ...]) -> list[tuple[Span, ...]]:
    """The spans of each response of a row.

    Args:
        value: a list of objects with `start`, `end` and a label, or the same as JSON; for several
            responses a list of such lists.
        column: of it, for messages.
        responses: of the row; spans of text have to lie in it.

    Raises:
        MismatchError: something else, or a span that its response does not have.
    """
    if isinstance(value, str):
        value = parse_list_text(value, column) if value.strip() else None
    if value is None:
        return [() for _ in responses]
    lists = value if len(responses) > 1 else [value]
    if not isinstance(lists, list) or len(lists) != len(responses):
        raise MismatchError(
            f"a list of spans for each of {len(responses)} responses in column `{column}`",
            described(value),
            _fix(),
        )
    return [
        tuple(_spans(one, column, response)) for one, response in zip(lists, responses, strict=True)
    ]


def _spans(value: object, column: str, response: Response) -> Iterator[Span]:
    """The spans of one response."""
    if not isinstance(value, list):
        raise MismatchError(f"a list of spans in column `{column}`", described(value), _fix())
    for item in value:
        start, end = (item.get("start"), item.get("end")) if isinstance(item, dict) else (None,) * 2
        if type(start) is not int or type(end) is not int:
            raise MismatchError(
                f"spans in column `{column}` as objects with whole numbers `start` and `end`",
                described(item),
                _fix(),
            )
        label = next((item[name] for name in LABELS if item.get(name) is not None), "")
        if not isinstance(label, str):
            expected = f"text as label of a span in column `{column}`"
            raise MismatchError(expected, described(label), _fix())
        length = len(response) if isinstance(response, str) else None
        if not 0 <= start <= end or (length is not None and end > length):
            within = "characters" if length is None else f"the {length:,} characters"
            raise MismatchError(
                f"spans in column `{column}` within {within} of the response, each ending where "
                "it begins or later",
                f"{start} to {end}",
                _fix(),
            )
        yield Span(start, end, check_utf8(label, column))


def generators_of(
    model: tuple[object, str], temperature: tuple[object, str], count: int
) -> list[Generator | None]:
    """What made each of so many responses; None where nothing is known.

    Args:
        model: the value and its column: text, or an object with `model` and `temperature`; or a
            list of those, one for each response.
        temperature: the value and its column: a number, or a list of those.
        count: of the responses.

    Raises:
        MismatchError: something else.
    """
    models, temperatures = _each(*model, count), _each(*temperature, count)
    return [
        _generator(one, model[1], warmth, temperature[1])
        for one, warmth in zip(models, temperatures, strict=True)
    ]


def _each(value: object, column: str, count: int) -> list[object]:
    if not isinstance(value, list):
        return [value] * count
    if len(value) != count:
        raise MismatchError(
            f"one value for each of {count} responses in column `{column}`",
            described(value),
            "fix the row, or rename the column",
        )
    return value


def _generator(
    model: object, model_column: str, temperature: object, temperature_column: str
) -> Generator | None:
    if isinstance(model, dict):
        if temperature is None:
            temperature, temperature_column = model.get("temperature"), model_column
        model = model.get("model", model.get("name"))
    if model is not None and not isinstance(model, str):
        raise MismatchError(
            f"text as model of the response in column `{model_column}`",
            described(model),
            "fix the row, or rename the column",
        )
    name = check_utf8(model, model_column).strip() if model else ""
    warmth = _temperature(temperature, temperature_column)
    return Generator(name or None, warmth) if name or warmth is not None else None


def _temperature(value: object, column: str) -> float | None:
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    try:
        number = float(value) if isinstance(value, (str, int, float)) else math.nan
    except ValueError:
        number = math.nan
    if isinstance(value, bool) or not 0 <= number < math.inf:
        raise MismatchError(
            f"a temperature of at least 0 in column `{column}`",
            described(value),
            "fix the row, or rename the column",
        )
    return number


def _fix() -> str:
    return f"fix the row, or leave the spans out with {parameter('spans_column', 'none')}"
