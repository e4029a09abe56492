"""The fields of ExtractConfig as options of the command line."""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import typer
from pydantic.fields import FieldInfo

from hallutrace.commands.common_options import choices, completes
from hallutrace.config import ExtractConfig
from hallutrace.paths import expanded
from hallutrace.presets import PRESETS

NONE = "none"  # the value that takes the default of an option away

Preset = Annotated[
    str | None,
    typer.Option(
        help=f"Named settings of a whole experiment: {', '.join(sorted(PRESETS))}.",
        metavar="NAME",
        autocompletion=completes(lambda: PRESETS),
    ),
]
ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config",
        help="YAML file with options by name; options on the command line have precedence.",
        metavar="FILE",
        parser=expanded,
    ),
]


def config_options(command: Callable[..., None]) -> Callable[..., None]:
    """Gives a command with ``**options`` one option for every field of :class:`ExtractConfig`.

    The command receives only the options that were given, as text: the configuration checks them.
    """
    own = [
        parameter
        for parameter in inspect.signature(command, eval_str=True).parameters.values()
        if parameter.kind is not inspect.Parameter.VAR_KEYWORD
    ]
    fields = [_parameter(name, field) for name, field in ExtractConfig.model_fields.items()]

    def with_options(**given: Any) -> None:
        names = {parameter.name for parameter in fields}
        options = {name: value for name, value in given.items() if name in names}
        rest = {name: value for name, value in given.items() if name not in names}
        command(**rest, **{name: value for name, value in options.items() if value is not None})

    with_options.__name__ = command.__name__
    with_options.__doc__ = command.__doc__
    parameters = [
        parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in [*own, *fields]
    ]
    with_options.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    with_options.__annotations__ = {
        parameter.name: parameter.annotation for parameter in parameters
    }
    return with_options


def config_of(preset: str | None, config: Path | None, options: dict[str, Any]) -> ExtractConfig:
    """The configuration that a command was given.

    Raises:
        InputError: an option, a file or a preset that cannot be used.

    Examples:
        >>> config_of(None, None, {"top_k": "8", "device_map": "none"}).top_k
        8
    """
    texts = {
        name: None if value == NONE and _may_be_none(name) else value
        for name, value in options.items()
    }
    return ExtractConfig.from_options(texts, preset=preset, config=config)


def flag_of(name: str) -> str:
    """The option of a field.

    Examples:
        >>> flag_of("top_k")
        '--top-k'
    """
    return "--" + name.replace("_", "-")


def _may_be_none(name: str) -> bool:
    # For a column, `none` is a value; a column that is not given is found by its name.
    if name.endswith("_column"):
        return False
    return type(None) in _alternatives(ExtractConfig.model_fields[name].annotation)


def _parameter(name: str, field: FieldInfo) -> inspect.Parameter:
    flag = flag_of(name)
    extra = field.json_schema_extra
    panel = extra.get("panel") if isinstance(extra, dict) else None
    default = field.get_default(call_default_factory=True)
    text = field.description or ""
    if default is not False and default not in (None, (), {}):
        text += f" (default: {default})"
    text = f"{text[:1].upper()}{text[1:]}."
    about: dict[str, Any] = {"help": text, "rich_help_panel": panel, "show_default": False}
    if field.annotation is bool:
        option = typer.Option(flag, **about)
        kind: Any = bool | None
    else:
        option = typer.Option(flag, **choices(*_values(field.annotation)), **about)
        kind = list[str] | None if get_origin(field.annotation) is tuple else str | None
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[kind, option]
    )


def _values(annotation: Any) -> list[str]:
    """The words that a field takes, and a placeholder in capitals for each other type."""
    words: list[str] = []
    for kind in _alternatives(annotation):
        if get_origin(kind) is Literal:
            words.extend(map(str, get_args(kind)))
        elif kind is not type(None):
            words.append({int: "N", float: "X", Path: "PATH", dict: "YAML"}.get(kind, "TEXT"))
    return words


def _alternatives(annotation: Any) -> list[Any]:
    """The types of a union, without their annotations."""
    if get_origin(annotation) in (Union, types.UnionType):
        return [kind for part in get_args(annotation) for kind in _alternatives(part)]
    if get_origin(annotation) is Annotated:
        return _alternatives(get_args(annotation)[0])
    return [get_origin(annotation) if get_origin(annotation) is dict else annotation]
