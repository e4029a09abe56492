"""What differs between the manifests of two runs."""

from __future__ import annotations

import json
from typing import Any

from hallutrace.store.folder import Run, differences

LONGEST_VALUE = 300  # characters of a setting


def manifest_differences(one: Run, other: Run) -> list[tuple[str, str, str]]:
    """Dotted name of each field of identity or facts that differs, and both values as JSON.

    Args:
        one: a run.
        other: another one.

    Raises:
        DamagedError: a manifest is damaged.

    Examples:
        >>> manifest_differences(Run(run), Run(run))
        []
    """
    first, second = ({**vars(run.manifest())} for run in (one, other))
    return [
        (name.removeprefix("identity."), _short(there), _short(here))
        for name, there, here in differences(first, second)
    ]


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= LONGEST_VALUE else f"{text[:LONGEST_VALUE]}…"
