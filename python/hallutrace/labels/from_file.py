"""Labels from a file that a person or a judge wrote."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from pathlib import Path
from typing import Any

from hallutrace.errors import InputError
from hallutrace.option_names import parameter
from hallutrace.questions.cell_values import described, identifier
from hallutrace.questions.file_formats import open_file
from hallutrace.questions.rows import MismatchError, row_location
from hallutrace.questions.source import read_rows
from hallutrace.store.label_files import Key, TraceLabel, finite

MEANINGS: dict[str, int | None] = {
    "1": 1,
    "1.0": 1,
    "true": 1,
    "hallucinated": 1,
    "0": 0,
    "0.0": 0,
    "false": 0,
    "right": 0,
    "null": None,
    "": None,
}
"""Labels as text; case does not matter. ``true`` is 1, hallucinated; 1.0 is how pandas writes 1."""


def read_label_file(path: Path, keys: Collection[Key]) -> dict[Key, TraceLabel]:
    """The labels in a file.

    Columns: ``id``, ``label`` (1, 0, null, true, false, ``hallucinated``, ``right``), and if there,
    ``sample`` (0 where it is not) and ``score``; others are passed over. The same row twice is one.

    Args:
        path: of a .jsonl, .json, .csv, .tsv or .parquet file.
        keys: of the run's traces.

    Returns:
        Labels by key, in the file's order.

    Raises:
        InputError: no such file, no rows, a row that cannot be read, two rows that contradict each
            other, or rows of traces that the run does not have.
    """
    reader = open_file(str(path), parameter("file", option="--from"))
    found: dict[Key, TraceLabel] = {}
    first: dict[Key, str] = {}
    for raw in read_rows(reader):
        where = row_location(reader.location, raw.index, raw.line)
        if isinstance(raw.values, MismatchError):
            raise raw.values.at(where)
        try:
            key, row = _row(dict(raw.values))
        except ValueError as error:
            raise InputError(f"{error}, in {where} - fix the row") from None
        if found.setdefault(key, row) != row:
            raise InputError(
                f"Expected one label of {key[0]!r}, sample {key[1]}, got others in "
                f"{first[key]} and {where} - remove one of the rows"
            )
        first.setdefault(key, where)
    if not found:
        raise InputError(f"Expected rows with `id` and `label`, got none, in {path} - add some")
    _check_known(path, found, set(keys))
    return found


def digest_of(path: Path) -> str:
    """SHA-256 of a file, hexadecimal.

    Examples:
        >>> _ = Path("empty.csv").write_bytes(b"")
        >>> digest_of(Path("empty.csv"))[:8]
        'e3b0c442'
    """
    digest = hashlib.sha256()
    with path.expanduser().open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _check_known(path: Path, found: Collection[Key], known: set[Key]) -> None:
    unknown = [key for key in found if key not in known]
    if unknown:
        shown = ", ".join(f"{id_!r} (sample {sample})" for id_, sample in unknown[:3])
        raise InputError(
            f"Expected ids and samples of the run's traces, got {len(unknown):,} others of "
            f"{len(found):,}: {shown}, in {path} - take them out, or give the run they belong to"
        )


def _row(values: dict[str, Any]) -> tuple[Key, TraceLabel]:
    """A row of the file.

    Raises:
        ValueError: what was expected, and what was found.
    """
    label = values.get("label")
    try:
        # As among questions: 17 and 17.0 are the id "17".
        id_ = identifier(values.get("id"))
    except ValueError:
        id_ = None
    if id_ is None:
        got = described(values.get("id"))
        raise ValueError(f"Expected a question's id in column `id`, got {got}")
    if "label" not in values:
        there = ", ".join(f"`{name}`" for name in list(values)[:6])
        raise ValueError(f"Expected a column `label`, got {there}")
    text = "" if label is None else label
    text = str(int(text)) if isinstance(text, bool) else str(text).strip().lower()
    if text not in MEANINGS:
        raise ValueError(
            "Expected 1, 0, null, true, false, hallucinated or right in column `label`, got "
            f"{described(label)}"
        )
    key = (id_, _sample(values.get("sample")))
    return key, TraceLabel(MEANINGS[text], _score(values.get("score")))


def _sample(value: Any) -> int:
    if value is None:
        return 0
    if isinstance(value, str) and value.strip().isdecimal() and len(value) < 10:
        value = int(value)
    if type(value) is not int or value < 0:
        raise ValueError(f"Expected a number from 0 in column `sample`, got {described(value)}")
    return value


def _score(value: Any) -> float | None:
    if value is None:
        return None
    try:
        return finite(float(value) if isinstance(value, str) else value)
    except ValueError:
        raise ValueError(
            f"Expected a finite number in column `score`, got {described(value)}"
        ) from None
