"""Canonical JSON: equal values have equal bytes, so that digests of them can be compared."""

from __future__ import annotations

import hashlib
import json
from typing import Any


def canonical(value: Any) -> bytes:
    r"""A value as canonical JSON: sorted names, no spaces, UTF-8.

    Examples:
        >>> canonical({"b": 1, "a": ["é", None]})
        b'{"a":["\xc3\xa9",null],"b":1}'
    """
    return to_utf8(json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False))


def digest(value: Any) -> bytes:
    """SHA-256 of a value's canonical JSON (32 bytes).

    Examples:
        >>> digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
        True
    """
    return hashlib.sha256(canonical(value)).digest()


def to_utf8(text: str) -> bytes:
    r"""JSON as UTF-8; lone surrogates are written as JSON escapes, so they can be read back.

    Python uses lone surrogates for bytes of file names that are not UTF-8.

    Examples:
        >>> to_utf8("\ud800")
        b'\\ud800'
    """
    return text.encode("utf-8", "backslashreplace")
