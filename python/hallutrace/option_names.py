"""Names of options in messages: as the command line has them, and as callers of Python give them.

A message is written once, in the words of whoever is likelier to read it: the configuration names
fields (`top_k`), an extraction names options (``--top-k 16``). The other one gets it from here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from hallutrace.config import ExtractConfig
from hallutrace.errors import HallutraceError

_OPTION = re.compile(r"""--([a-z][a-z-]*[a-z])(?:[ =]('[^']*'|"[^"]*"|\d[\d.]*|[a-z0-9_]+))?""")


_FIELD = re.compile(r"`([a-z_]+)`")


@contextmanager
def naming_options() -> Iterator[None]:
    """Within it, messages of errors name options where they named fields of the configuration."""
    try:
        yield
    except HallutraceError as error:
        error.args = (options_in(str(error)), *error.args[1:])
        raise


@contextmanager
def naming_parameters() -> Iterator[None]:
    """Within it, messages of errors name parameters where they named options."""
    try:
        yield
    except HallutraceError as error:
        error.args = (parameters_in(str(error)), *error.args[1:])
        raise


def parameters_in(text: str) -> str:
    """A message with options of ``extract`` written as parameters.

    A word after an option is its value where the option can have it.

    Args:
        text: a message.

    Examples:
        >>> parameters_in("use --hidden-states answer, --top-k none or --overwrite")
        "use hidden_states='answer', top_k=None or overwrite=True"
        >>> parameters_in("give all workers the same --limit and --shard-size")
        'give all workers the same limit and shard_size'
    """
    return _OPTION.sub(_parameter, text)


def options_in(text: str) -> str:
    """A message with fields of the configuration written as options.

    Args:
        text: a message.

    Examples:
        >>> options_in("Expected `top_k` to be at least 1, got 0 - change `top_k`")
        'Expected --top-k to be at least 1, got 0 - change --top-k'
    """

    def option(found: re.Match[str]) -> str:
        name = found.group(1)
        is_field = name in ExtractConfig.model_fields
        return "--" + name.replace("_", "-") if is_field else found.group()

    return _FIELD.sub(option, text)


def _parameter(found: re.Match[str]) -> str:
    option, value = found.groups()
    name = option.replace("-", "_")
    field = ExtractConfig.model_fields.get(name)
    if field is None:
        return found.group()
    if field.annotation is bool:
        rest = found.group()[len(option) + 2 :]
        return f"{name}=True{rest}"
    if value is None:
        return name
    if value == "none" and type(None) in getattr(field.annotation, "__args__", ()):
        return f"{name}=None"
    if value[0] in "'\"" or value[0].isdigit():
        return f"{name}={value}"
    is_choice = f"'{value}'" in repr(field.annotation)
    return f"{name}={value!r}" if is_choice else f"{name} {value}"
