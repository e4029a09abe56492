"""Label files in the folder ``labels`` of a run: one row per trace, and the parameters."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple

from hallutrace import atomic_files
from hallutrace.atomic_files import storage_errors
from hallutrace.errors import DamagedError, InputError
from hallutrace.label_protocols import how_to_make
from hallutrace.option_names import parameter

SCHEMA = 1
_NAME = re.compile(r"\w[\w.+-]{0,99}")

Key = tuple[str, int]
"""Question id, and number of the sample from 0."""


class TraceLabel(NamedTuple):
    """The label of one trace by one protocol.

    Attributes:
        label: 1 hallucinated, 0 right, None undecided.
        score: higher means more likely right; None if the protocol gave no score.
    """

    label: int | None
    score: float | None


def path_of(folder: Path, name: str, suffix: str = ".jsonl") -> Path:
    """Path of a label file.

    Args:
        folder: of the run.
        name: of the protocol.
        suffix: ``.jsonl`` for the labels, ``.json`` for their parameters.

    Raises:
        InputError: the name is invalid, or the file is a link to a file outside of the run.

    Examples:
        >>> path_of(run, "contains").name
        'contains.jsonl'
    """
    if not _NAME.fullmatch(name):
        raise InputError(
            f"Expected a name of up to 100 letters, digits and . _ + -, got {name!r} as the name "
            "of labels - choose another"
        )
    path = folder / "labels" / f"{name}{suffix}"
    if path.resolve() != folder.resolve() / "labels" / path.name:
        raise InputError(
            f"Expected labels within the run, got {path}, a link to somewhere else - "
            "put the file itself there"
        )
    return path


def names(folder: Path) -> list[str]:
    """Sorted names of the protocols with labels in a run; files with invalid names are ignored."""
    stems = (path.stem for path in (folder / "labels").glob("*.jsonl"))
    return sorted(stem for stem in stems if _NAME.fullmatch(stem))


def read(folder: str | os.PathLike[str], name: str) -> dict[Key, int | None]:
    """The labels of one protocol.

    Args:
        folder: of the run.
        name: of the protocol.

    Returns:
        Label by question id and sample, in the order of the file: 1 hallucinated, 0 right, None
        undecided.

    Raises:
        InputError: the run has no labels of that name.
        DamagedError: a row is invalid; the message names file and line.

    Examples:
        >>> len(read(run, "contains"))
        8
    """
    return {key: row.label for key, row in read_rows(Path(folder), name).items()}


def read_rows(folder: Path, name: str) -> dict[Key, TraceLabel]:
    """As :func:`read`, with labels and scores."""
    path = path_of(folder, name)
    if not path.is_file():
        existing = ", ".join(names(folder)) or "none"
        raise InputError(
            f"Expected the labels `{name}` in {folder}, got {existing} - make them with "
            f"`{how_to_make(folder, name)}`"
        )
    rows: dict[Key, TraceLabel] = {}
    with _reading(path), path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                key, row = _parsed(line)
                if key in rows:
                    raise ValueError(f"{key[0]!r}, sample {key[1]}, again")
            except (ValueError, RecursionError) as error:
                raise DamagedError(
                    'Expected {"id": text, "sample": number, "label": 1, 0 or null, "score": '
                    f"number or null}} once a trace, got {_got(error)} in {path}, line "
                    f"{number} - fix the line, or make the labels again with "
                    f"{parameter('overwrite', True)}"
                ) from None
            rows[key] = row
    return rows


def _reading(path: Path) -> AbstractContextManager[None]:
    return storage_errors(f"read {path}", "check the file and its permissions")


def _got(error: Exception) -> str:
    if isinstance(error, UnicodeDecodeError | json.JSONDecodeError | RecursionError):
        return "something that is not JSON"
    return str(error)


def _parsed(line: bytes) -> tuple[Key, TraceLabel]:
    """Key and row of a line.

    Raises:
        ValueError: the line is invalid; the message says why.
    """
    found = json.loads(line)
    if not isinstance(found, dict):
        raise ValueError("no JSON object")
    id_, sample = found.get("id"), found.get("sample")
    label, score = found.get("label", ...), found.get("score")
    if not isinstance(id_, str):
        raise ValueError("`id` that is not text")
    if type(sample) is not int or sample < 0:
        raise ValueError("`sample` that is not a whole number from 0")
    if label is not None and (type(label) is not int or label not in (0, 1)):
        raise ValueError("`label` that is not 1, 0 or null")
    if score is not None:
        score = finite(score)
    return (id_, sample), TraceLabel(label, score)


def finite(value: Any) -> float:
    """Converts a score that was read from a file.

    Raises:
        ValueError: the value is not a number, or not finite.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError("`score` that is not a number")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise ValueError("`score` that is not finite")
    return number


def read_parameters(folder: Path, name: str) -> dict[str, Any] | None:
    """Parameters with which the labels of a protocol were made; None if they are not known.

    Args:
        folder: of the run.
        name: of the protocol.

    Raises:
        DamagedError: the file is invalid, or of another schema.
        StorageError: the file cannot be read.
    """
    path = path_of(folder, name, ".json")
    if not path.is_file():
        return None
    with _reading(path):
        text = path.read_bytes()
    try:
        content = json.loads(text)
        if content["schema"] != SCHEMA or not isinstance(content["parameters"], dict):
            raise ValueError
    except (ValueError, KeyError, TypeError, RecursionError):
        raise DamagedError(
            f"Expected the parameters of labels, of schema {SCHEMA}, got something else in {path} "
            f"- delete the file, or make the labels again with {parameter('overwrite', True)}"
        ) from None
    parameters: dict[str, Any] = content["parameters"]
    return parameters


def counts_of(rows: Iterable[TraceLabel]) -> dict[str, int]:
    """Number of rows by kind.

    Returns:
        ``traces`` (all rows), ``hallucinated``, ``right``, ``dropped`` (a score without a label)
        and ``unjudged`` (neither).

    Examples:
        >>> counts_of([TraceLabel(1, 0.2), TraceLabel(None, 0.5)])
        {'traces': 2, 'hallucinated': 1, 'right': 0, 'dropped': 1, 'unjudged': 0}
    """
    counts = {"traces": 0, "hallucinated": 0, "right": 0, "dropped": 0, "unjudged": 0}
    for row in rows:
        counts["traces"] += 1
        if row.label is not None:
            counts["hallucinated" if row.label else "right"] += 1
        else:
            counts["unjudged" if row.score is None else "dropped"] += 1
    return counts


def write_labels(
    folder: Path,
    name: str,
    rows: Mapping[Key, TraceLabel],
    parameters: dict[str, Any] | None,
    origin: dict[str, Any] | None = None,
) -> bool:
    """Writes the labels of a protocol and their parameters, each file atomically.

    If the process is killed between the two files, the labels have no parameters, never wrong ones.

    Args:
        folder: of the run.
        name: of the protocol.
        rows: labels by key, in the order in which they are written.
        parameters: with which the labels were made; labels of runs with equal parameters can be
            merged. None if they are not known: only the rows are written.
        origin: further facts about the origin of the labels, stored but not compared.

    Returns:
        Whether a file has changed.

    Raises:
        StorageError: the file system refused.
    """
    lines = "".join(
        json.dumps({"id": id_, "sample": sample, "label": row.label, "score": row.score}) + "\n"
        for (id_, sample), row in rows.items()
    ).encode()
    facts = None if parameters is None else _facts(rows, parameters, origin)
    path, facts_path = path_of(folder, name), path_of(folder, name, ".json")
    with storage_errors(
        f"write the labels {path}",
        "what was there before is whole; make the folder writable, or copy the run to where it is",
    ):
        if _content(path) == lines and _content(facts_path) == facts:
            return False
        if _content(path) != lines:
            if facts_path.is_file():
                facts_path.unlink()
                atomic_files.sync_folder(path.parent)
            atomic_files.write(path, lines)
        if facts is None:
            facts_path.unlink(missing_ok=True)
        else:
            atomic_files.write(facts_path, facts)
    return True


def _facts(
    rows: Mapping[Key, TraceLabel], parameters: dict[str, Any], origin: dict[str, Any] | None
) -> bytes:
    facts = {"schema": SCHEMA, "parameters": parameters, "counts": counts_of(rows.values())}
    if origin is not None:
        facts["origin"] = origin
    return json.dumps(facts, indent=1, sort_keys=True).encode() + b"\n"


def _content(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None
