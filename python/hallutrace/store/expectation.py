"""How many answers an extraction is going to have, for those who watch it from outside.

The number is a file in ``partial/`` while a run is being made. It decides nothing: a run without it
is as good, and a file that is left behind by a kill says how far the run should have come.
"""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

from hallutrace import atomic_files

NAME = "expected-answers"  # JSON; without an ending, unlike the files of shards beside it


def write(partial: Path, answers: int | None) -> None:
    """Tells how many answers there will be; nothing where that is not known.

    Args:
        partial: folder ``partial`` of the run.
        answers: of all questions.

    Examples:
        >>> write(folder, 400)
        >>> read(folder)
        400
    """
    if answers is not None and answers != read(partial):
        with suppress(OSError):
            atomic_files.write(partial / NAME, json.dumps({"answers": answers}).encode())


def read(partial: Path) -> int | None:
    """What was told; None where nothing was."""
    try:
        answers = json.loads((partial / NAME).read_bytes())["answers"]
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return answers if type(answers) is int and answers >= 0 else None


def remove(partial: Path) -> None:
    """Takes it back once nobody works on the run any more."""
    with suppress(OSError):
        if not any(partial.glob("*.claim*")):
            atomic_files.remove(partial / NAME)
