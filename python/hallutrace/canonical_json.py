"""One form for each JSON value, so that equal things have equal bytes."""

from __future__ import annotations

import json
from typing import Any


def canonical(value: Any) -> bytes:
    """Canonical JSON: sorted names, no spaces, UTF-8."""
    return in_utf8(json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False))


def in_utf8(text: str) -> bytes:
    """JSON as UTF-8; what UTF-8 cannot say is escaped, and read back as it was.

    Such are bytes of file names that are no UTF-8: Python has lone surrogates for them.
    """
    return text.encode("utf-8", "backslashreplace")
