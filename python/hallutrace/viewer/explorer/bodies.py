"""Bodies of POST requests, checked: their sizes, their kinds, and nothing beside."""

from __future__ import annotations

import json
from typing import Any

from starlette.requests import Request

from hallutrace.errors import HallutraceError, InputError
from hallutrace.viewer.explorer.security import MAX_BODY

MOST_PAYLOADS = 400  # of a page that is saved


class TooLargeError(HallutraceError):
    """A body with more bytes than the explorer takes."""


async def json_body(request: Request) -> dict[str, Any]:
    """The JSON object of a POST.

    Raises:
        TooLargeError: more than ``MAX_BODY`` bytes.
        InputError: something else than a JSON object.
    """
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY:
            raise TooLargeError(f"Expected at most {MAX_BODY} bytes")
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise InputError("Expected a JSON object, got something else")
    return content


def bounded(given: dict[str, Any], name: str, longest: int, may_lack: bool = False) -> str | None:
    """A text of a body.

    Args:
        given: the body.
        name: of the text.
        longest: characters that it may have.
        may_lack: whether it may be missing or empty; it is None then.

    Raises:
        InputError: it is missing, no text, or too long.

    Examples:
        >>> bounded({"run": "demo"}, "run", 10)
        'demo'
    """
    value = given.get(name)
    if may_lack and value in (None, ""):
        return None
    if not isinstance(value, str) or not value.strip():
        raise InputError(f"Expected a text as `{name}`, got none - write one")
    if len(value) > longest:
        raise InputError(
            f"Expected at most {longest:,} characters as `{name}`, got {len(value):,} - shorten it"
        )
    return value


def payloads_of(given: Any) -> list[tuple[str, dict[str, str]]]:
    """Names and parameters of payloads, as a page sends them.

    Args:
        given: of a body.

    Raises:
        InputError: something else, or too many.

    Examples:
        >>> payloads_of([["layer", {"trace": "q1", "layer": 0, "head": None}]])
        [('layer', {'trace': 'q1', 'layer': '0'})]
    """
    if not isinstance(given, list) or len(given) > MOST_PAYLOADS:
        raise InputError(f"Expected a list of at most {MOST_PAYLOADS} `payloads`")
    found = []
    for one in given:
        match one:
            case [str(name), dict(parameters)]:
                found.append((name, _texts(parameters)))
            case _:
                raise InputError("Expected a name and parameters of each of `payloads`")
    return found


def state_of(given: Any) -> dict[str, str]:
    """The state of a page, as its address has it.

    Raises:
        InputError: something else, or too much.
    """
    if not isinstance(given, dict) or len(given) > MOST_PAYLOADS:
        raise InputError("Expected an object as `state`, got something else")
    return _texts(given)


def _texts(given: dict[str, Any]) -> dict[str, str]:
    """Values as a page writes them into an address; those that are null are left out."""
    found = {}
    for name, value in given.items():
        if isinstance(value, bool):
            found[name] = "true" if value else "false"
        elif isinstance(value, (str, int, float)):
            found[name] = str(value)
        elif value is not None:
            raise InputError("Expected texts and numbers as parameters, got something else")
    return found
