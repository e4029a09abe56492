"""The log of a training, which grows by a line: who follows it reads only what is new.

``history.jsonl``:

    {"began": nanoseconds since 1970}   once, first
    {"epoch": 1, "loss": ...}           an epoch, see hallutrace.detect.nets.history.Epoch
    {"note": text}                      a message
    {"resumed": 3, "notes": [...]}      it goes on after epoch 3; later epochs are made again
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from hallutrace import atomic_files
from hallutrace.atomic_files import storage_errors
from hallutrace.canonical_json import canonical
from hallutrace.detect.nets.history import WHOLE, Epoch
from hallutrace.errors import DamagedError

LOG = "history.jsonl"
ALL = 2**31 - 1
"""Of epochs: as many as there are."""

_MOST_BYTES = 8_000_000  # that are read at once; a cursor tells where the rest begins


def begin_log(folder: Path, epochs: Sequence[Epoch], notes: Sequence[str]) -> None:
    """Starts ``history.jsonl``, or tells in it after which epoch a training goes on.

    Args:
        folder: of the training.
        epochs: those that stand, of a training that goes on.
        notes: those that stand.

    Raises:
        StorageError: it cannot be written.
    """
    if (folder / LOG).is_file():
        append_to_log(folder, {"resumed": len(epochs), "notes": list(notes)})
        return
    append_to_log(folder, {"began": time.time_ns()})
    for epoch in epochs:
        append_to_log(folder, asdict(epoch))
    for note in notes:
        append_to_log(folder, {"note": note})


def append_to_log(folder: Path, line: Mapping[str, Any]) -> None:
    """Appends a line to ``history.jsonl``.

    Raises:
        StorageError: it cannot be written.
    """
    with storage_errors(f"write {folder / LOG}", "choose another folder"):
        atomic_files.append_line(folder / LOG, canonical(dict(line)))


@dataclass(frozen=True)
class News:
    """What a training wrote since somebody looked.

    Attributes:
        kept: number of epochs known before that still stand; 0 where all are told again,
            :data:`ALL` where all stand.
        epochs: those that follow.
        notes_kept: whether notes known before still stand.
        notes: those that follow.
    """

    kept: int
    epochs: tuple[Epoch, ...]
    notes_kept: bool
    notes: tuple[str, ...]


def read_since(folder: Path, cursor: str | None = None) -> tuple[News, str]:
    """What a training wrote since a cursor; what was read before is not read again.

    Args:
        folder: of the training.
        cursor: that the last call gave; None reads from the start. One of another training in
            the same folder does too.

    Returns:
        The news, and the cursor for the next call.

    Raises:
        DamagedError: a training that wrote only ``history.json``, which is damaged.
        StorageError: a file cannot be read.

    Examples:
        >>> begin_log(folder, [], [])
        >>> append_to_log(folder, {"note": "first"})
        >>> news, cursor = read_since(folder)
        >>> append_to_log(folder, {"note": "second"})
        >>> news.notes, read_since(folder, cursor)[0].notes
        (('first',), ('second',))
    """
    path = folder / LOG
    with storage_errors(f"read {path}", "check the file and its permissions"):
        try:
            file = path.open("rb")
        except FileNotFoundError:
            return _whole(folder, cursor)
        with file:
            began, after = _began(file.readline(_MOST_BYTES))
            start = file.tell()
            offset = _offset(cursor, began)
            file.seek(0, 2)
            is_known = offset is not None and start <= offset <= file.tell()
            begin = (offset or 0) if is_known else start if after else 0
            file.seek(begin)
            data = file.read(_MOST_BYTES)
    end = data.rfind(b"\n") + 1
    lines = _lines(data[:end])
    return _news(lines, is_known), f"{began}:{begin + end}"


def _news(lines: Iterator[dict[str, Any]], is_known: bool) -> News:
    """Puts lines together: an epoch that is told again takes the place of the older ones."""
    kept = ALL if is_known else 0
    epochs: list[Epoch] = []
    notes: list[str] = []
    notes_kept = is_known
    for line in lines:
        if "note" in line:
            notes.append(line["note"])
            continue
        standing = line["resumed"] if "resumed" in line else line["epoch"] - 1
        kept = min(kept, standing)
        epochs = [one for one in epochs if one.epoch <= standing]
        if "resumed" in line:
            notes_kept, notes = False, [str(note) for note in line["notes"]]
        else:
            epochs.append(Epoch(**line))
    return News(kept, tuple(epochs), notes_kept, tuple(notes))


def _lines(data: bytes) -> Iterator[dict[str, Any]]:
    """Lines that are whole; what a kill tore is left out."""
    numbers = {field.name for field in fields(Epoch)}
    for text in data.splitlines():
        try:
            line = json.loads(text)
        except ValueError:
            continue
        if not isinstance(line, dict):
            continue
        is_epoch = line.keys() == numbers and all(_is_number(one) for one in line.values())
        is_resumed = isinstance(line.get("resumed"), int) and isinstance(line.get("notes"), list)
        if is_epoch or is_resumed or isinstance(line.get("note"), str):
            yield line


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _began(line: bytes) -> tuple[int, bool]:
    """When the training of a log began; 0 of one whose first line is torn."""
    try:
        return int(json.loads(line)["began"]), True
    except (ValueError, KeyError, TypeError):
        return 0, False


def _offset(cursor: str | None, began: int) -> int | None:
    """Where a cursor of this training points to; None of any other."""
    first, _, offset = (cursor or "").partition(":")
    is_ours = first == str(began) and offset.isascii() and offset.isdecimal()
    return int(offset) if is_ours and len(offset) < 20 else None


def _whole(folder: Path, cursor: str | None) -> tuple[News, str]:
    """The same of a training that wrote ``history.json`` alone."""
    path = folder / WHOLE
    try:
        changed = path.stat().st_mtime_ns
    except FileNotFoundError:
        return News(0, (), False, ()), "none"
    if cursor == f"whole-{changed}":
        return News(ALL, (), True, ()), cursor
    try:
        content = json.loads(path.read_bytes())
        epochs = tuple(Epoch(**one) for one in content["epochs"])
        notes = tuple(map(str, content["notes"]))
    except (ValueError, KeyError, TypeError) as error:
        raise DamagedError(
            f"Expected the history of a training, got {type(error).__name__} in {path} - restore "
            "it from a copy, or train the detector again"
        ) from None
    return News(0, epochs, False, notes), f"whole-{changed}"
