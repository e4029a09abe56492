"""Options of a detector as a typed model: checked in one place, listed by help, read from text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from hallutrace.errors import HallutraceError, InputError

_CONFIG = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)
_NONE = ("none", "null")

HiddenVector = Literal["last_prompt", "last_answer", "last", "mean_answer"]
"""A hidden vector that a detector can read, by the name of the pooled state."""

HIDDEN_VECTORS: tuple[HiddenVector, ...] = get_args(HiddenVector)

Count = Annotated[int, Field(ge=1)]
Counts = Annotated[tuple[Count, ...], Field(min_length=1, strict=False)]
Layers = Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1, strict=False)]


class Options(BaseModel):
    """What can be chosen of a detector: a field an option, with type, range, default and help.

    Types are strict: ``True`` is no integer and ``"5"`` no number. A list given for a tuple is
    taken where the field says ``strict=False``.

    Examples:
        >>> from pydantic import Field
        >>> class Mine(Options):
        ...     top_k: int = Field(10, ge=1, description="eigenvalues of each head")
        >>> Mine(top_k=3)
        Mine(top_k=3)
    """

    model_config = _CONFIG

    def to_json(self) -> dict[str, Any]:
        """All options by name, as JSON has them."""
        return self.model_dump(mode="json")


Given = TypeVar("Given", bound=Options)


def parse(model: type[Given], values: Mapping[str, Any], owner: str) -> Given:
    """Options from values by name.

    Args:
        model: the options that there are.
        values: those that are given.
        owner: name of the detector, for messages.

    Raises:
        InputError: an option that there is not, or a value that it cannot have; the message names
            the option and what it takes.
    """
    unknown = sorted(set(values) - set(model.model_fields))
    if unknown:
        known = ", ".join(model.model_fields)
        wanted = f"one of {known}" if known else "none, for it has none"
        raise InputError(
            f"Expected options of `{owner}` ({wanted}), got {', '.join(unknown)} - "
            "leave out what it does not know"
        )
    try:
        return model(**values)
    except ValidationError as error:
        raise _explained(error, model, values, owner) from None


def read_texts(model: type[Options], texts: Mapping[str, str]) -> dict[str, Any]:
    """Values of options that are given as text, on a command line.

    A text stands for itself where the option takes it (``edges=true``), else for what YAML reads in
    it (``layers=[1,2]``); ``none`` stands for None.

    Args:
        model: the options that there are.
        texts: by name; ``-`` may stand for ``_``.

    Returns:
        Values by name, for :func:`parse`, which refuses what no reading makes right.

    Examples:
        >>> class Mine(Options):
        ...     edges: Literal["true", "none"] = "true"
        ...     top_k: int | None = 8
        >>> read_texts(Mine, {"edges": "true", "top-k": "none"})
        {'edges': 'true', 'top_k': None}
    """
    values = {}
    for written, text in texts.items():
        name = written.replace("-", "_")
        readings = list(_readings(text))
        field = model.model_fields.get(name)
        good = []
        if field is not None:
            adapter: TypeAdapter[Any] = TypeAdapter(field.rebuild_annotation(), config=_CONFIG)
            good = [value for value in readings if _is_valid(adapter, value)]
        values[name] = good[0] if good else readings[-1]
    return values


@dataclass(frozen=True)
class OptionHelp:
    """One option, in words.

    Attributes:
        name: of the option.
        takes: the values that it takes.
        default: unless it is given.
        description: what it does.
    """

    name: str
    takes: str
    default: Any
    description: str


def option_help(model: type[Options]) -> list[OptionHelp]:
    """All options of a model in words, in their order."""
    schema = model.model_json_schema()["properties"] if model.model_fields else {}
    defaults = model().to_json()
    return [
        OptionHelp(name, takes(schema[name]), defaults[name], field.description or "")
        for name, field in model.model_fields.items()
    ]


def takes(schema: Mapping[str, Any]) -> str:
    """The values that a JSON schema describes, in words: ``an integer >= 1 or none``."""
    if "anyOf" in schema:
        return " or ".join(map(takes, schema["anyOf"]))
    if "enum" in schema:
        return f"one of {', '.join(map(str, schema['enum']))}"
    if "const" in schema:
        return str(schema["const"])
    kind = str(schema.get("type", "a value"))
    if kind == "array":
        least = " at least one, each" if schema.get("minItems") else ""
        return f"a list of{least} {takes(schema.get('items', {}))}"
    words = {
        "integer": "an integer",
        "number": "a number",
        "boolean": "true or false",
        "string": "text",
        "null": "none",
    }
    return words.get(kind, kind) + _range(schema)


def _range(schema: Mapping[str, Any]) -> str:
    if "minimum" in schema and "maximum" in schema:
        return f" from {schema['minimum']:g} to {schema['maximum']:g}"
    signs = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}
    bounds = [f"{sign} {schema[name]:g}" for name, sign in signs.items() if name in schema]
    return f" {' and '.join(bounds)}" if bounds else ""


def _readings(text: str) -> Iterator[Any]:
    """What a text may stand for, the likeliest first."""
    if text.lower() in _NONE:
        yield None
    yield text
    with suppress(ValueError):
        yield float(text)
    try:
        yield yaml.safe_load(text)
    except yaml.YAMLError:
        yield text


def _is_valid(adapter: TypeAdapter[Any], value: Any) -> bool:
    try:
        adapter.validate_python(value)
    except ValidationError:
        return False
    return True


def _explained(
    error: ValidationError, model: type[Options], values: Mapping[str, Any], owner: str
) -> HallutraceError:
    """The first of pydantic's findings, as expected, got, where, fix."""
    first = error.errors(include_url=False)[0]
    cause = first.get("ctx", {}).get("error")
    if isinstance(cause, HallutraceError):
        return cause
    if not first["loc"]:
        return InputError(f"Expected options of `{owner}` {cause or first['msg']} - change them")
    name = str(first["loc"][0])
    what = str(cause or takes(model.model_json_schema()["properties"][name]))
    return InputError(
        f"Expected `{name}` of `{owner}` {what}, got {values.get(name)!r} - change that option"
    )
