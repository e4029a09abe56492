"""What sources are made of: rows as they come, questions as they go."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Protocol

Response = str | tuple[int, ...]
"""An answer that exists already: its text, or its token ids."""


@dataclass(frozen=True, slots=True)
class Question:
    """One question to be asked.

    Attributes:
        id: names the question within its source.
        question: the text.
        references: right answers; empty where the source has none.
        context: a text to answer from.
        index: 0-based row of the source it (first) came from.
        group: splits go by it; the id unless the source names one.
        responses: answers that exist already, in the order of their samples.
    """

    id: str
    question: str
    references: tuple[str, ...]
    context: str | None
    index: int
    group: str
    responses: tuple[Response, ...] = ()

    def digest(self) -> bytes:
        """SHA-256 of the content as canonical JSON: every field but the index (32 bytes)."""
        content = {field.name: getattr(self, field.name) for field in fields(self)}
        del content["index"]
        return canonical_digest(content)


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that is no question.

    Attributes:
        id: of the question, where the row has one that can be read.
        index: 0-based row of the source.
        line: 1-based line of the file where the row begins; None where there are no lines.
        error: expected, got, where, fix.
    """

    id: str | None
    index: int
    line: int | None
    error: str


OFF = "none"
"""Given as a column: the field is left out, whatever the source has."""


@dataclass(frozen=True, slots=True)
class Columns:
    """Names of a source's columns; None is found by schema, `none` turns the field off."""

    id: str | None = None
    question: str | None = None
    answers: str | None = None
    context: str | None = None
    group: str | None = None
    response: str | None = None

    def given(self) -> dict[str, str]:
        """The columns that were mapped, by field."""
        return {name: column for name, column in asdict(self).items() if column is not None}


BY_SCHEMA = Columns()
"""No column mapped."""


class UnplacedError(Exception):
    """What is wrong with a row, a value or a spec; where that was is known further up."""

    def __init__(self, expected: str, got: str, fix: str) -> None:
        super().__init__(expected, got, fix)
        self.expected, self.got, self.fix = expected, got, fix

    def at(self, place: str) -> str:
        """The whole message: expected, got, where, fix."""
        return f"Expected {self.expected}, got {self.got}, in {place} - {self.fix}"


@dataclass(frozen=True, slots=True)
class RawRow:
    """A row as its reader found it.

    Attributes:
        index: 0-based, unreadable rows counted.
        line: 1-based line of the file, None where there are no lines.
        values: by column, or why they could not be read.
        cells: whether values are cells of text, where a list comes as JSON.
    """

    index: int
    line: int | None
    values: Mapping[str, object] | UnplacedError
    cells: bool = False


class RowReader(Protocol):
    """Where rows come from. Each call of `rows` is a pass of its own."""

    place: str
    """How messages name the source."""

    @property
    def total(self) -> int | None:
        """Number of rows, where it is cheaply known."""

    def rows(self, columns: Collection[str] | None = None) -> Iterator[RawRow]:
        """All rows in order; raises InputError where the source as a whole fails.

        Of the columns, those that are not asked for may be left out (None: all are asked for).
        """


def spot(place: str, index: int, line: int | None) -> str:
    """Where a row is, in words."""
    return f"{place}, row {index}" if line is None else f"{place}, line {line}"


def canonical_digest(content: object) -> bytes:
    """SHA-256 of a JSON-able value in canonical form: sorted keys, no spaces, ASCII."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode("ascii")).digest()


def digest_of(digests: Iterable[bytes]) -> str:
    """Stands for the questions of a shard, given their digests in order; 32 hexadecimal digits."""
    whole = hashlib.sha256()
    for digest in digests:
        whole.update(digest)
    return whole.hexdigest()[:32]
