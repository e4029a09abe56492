"""Questions, bad rows, and the rows that readers of files yield."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, NamedTuple, Protocol

from hallutrace.canonical_json import digest
from hallutrace.errors import InputError

Response = str | tuple[int, ...]
"""An answer that exists already: its text, or its token ids."""


class Span(NamedTuple):
    """A labelled range of characters of a response: `start` to `end`, which is not part of it."""

    start: int
    end: int
    label: str


class Generator(NamedTuple):
    """What made a response, as far as the source says: a model, and its temperature."""

    model: str | None
    temperature: float | None


@dataclass(frozen=True, slots=True)
class Question:
    """One question to be asked.

    Attributes:
        id: names the question within its source.
        question: the text.
        references: right answers; empty where the source has none.
        context: a text to answer from.
        index: 0-based row of the source it (first) came from.
        group: traces of one group stay together in splits; the id unless the source has groups.
        responses: answers that exist already, in the order of their samples.
        choices: label and text of each choice that the question offers.
        incorrect_answers: wrong answers that the source knows.
        generators: what made each response; empty where nothing is known of any.
        spans: of each response; empty where none has any.
        messages: the conversation that it ends, role and content of each message; empty where the
            question stands alone.

    Examples:
        >>> question = Question("q1", "Who?", ("Anna",), context=None, index=0, group="q1")
        >>> len(question.digest())
        32
    """

    id: str
    question: str
    references: tuple[str, ...]
    context: str | None
    index: int
    group: str
    responses: tuple[Response, ...] = ()
    choices: tuple[tuple[str, str], ...] = ()
    incorrect_answers: tuple[str, ...] = ()
    generators: tuple[Generator | None, ...] = ()
    spans: tuple[tuple[Span, ...], ...] = ()
    messages: tuple[Mapping[str, Any], ...] = ()

    def digest(self) -> bytes:
        """SHA-256 of the content as canonical JSON: every field but the index (32 bytes).

        Messages are left out where there are none.
        """
        content = {field.name: getattr(self, field.name) for field in fields(self)}
        del content["index"]
        if not self.messages:
            del content["messages"]
        return digest(content)


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that could not be read as a question.

    Attributes:
        id: of the question, where the row has one that can be read.
        index: of the row in the source, from 0.
        line: line of the file where the row begins, from 1; None where there are no lines.
        error: what was expected, what was found, where, and how to fix it.
    """

    id: str | None
    index: int
    line: int | None
    error: str

    @classmethod
    def of(
        cls, problem: MismatchError, location: str, id_: str | None, index: int, line: int | None
    ) -> BadRow:
        """The bad row for a problem in one row of a source.

        Args:
            problem: what is wrong with it.
            location: name of the source.
            id_: of the question, where it is known.
            index: of the row, from 0.
            line: of the file, from 1.
        """
        return cls(id_, index, line, problem.message(row_location(location, index, line)))


OFF = "none"
"""As the name of a column: the field is left out."""


@dataclass(frozen=True, slots=True)
class Columns:
    """Names of a source's columns; None finds the column by its name, `none` turns it off.

    Examples:
        >>> Columns(answers="gold", context="none").given()
        {'answers': 'gold', 'context': 'none'}
    """

    id: str | None = None
    question: str | None = None
    answers: str | None = None
    context: str | None = None
    group: str | None = None
    response: str | None = None
    spans: str | None = None

    def given(self) -> dict[str, str]:
        """The columns that were mapped, by field."""
        return {name: column for name, column in asdict(self).items() if column is not None}


BY_SCHEMA = Columns()
"""No column mapped."""


class MismatchError(Exception):
    """What is wrong with a row, a value or a spec; callers add where it was."""

    def __init__(self, expected: str, got: str, fix: str) -> None:
        super().__init__(expected, got, fix)
        self.expected, self.got, self.fix = expected, got, fix

    def message(self, location: str) -> str:
        """The whole message: expected, got, where, fix."""
        return f"Expected {self.expected}, got {self.got}, in {location} - {self.fix}"

    def at(self, location: str) -> InputError:
        """The error to raise where the source as a whole cannot be read."""
        return InputError(self.message(location))


@dataclass(frozen=True, slots=True)
class RawRow:
    """A row as its reader found it.

    Attributes:
        index: from 0; unreadable rows count.
        line: line of the file, from 1; None where there are no lines.
        values: by column, or why they could not be read.
        cells: whether values are cells of text, in which a list is written as JSON.
    """

    index: int
    line: int | None
    values: Mapping[str, object] | MismatchError
    cells: bool = False


class RowReader(Protocol):
    """A reader of one kind of source. Each call of `rows` reads from the beginning."""

    location: str
    """Name of the source in messages."""

    @property
    def total(self) -> int | None:
        """Number of rows, where it is cheaply known."""

    def rows(self, columns: Collection[str] | None = None) -> Iterator[RawRow]:
        """All rows in order.

        Args:
            columns: those that are needed, None for all; others may be left out.

        Raises:
            InputError: the source as a whole cannot be read.
        """


def row_location(location: str, index: int, line: int | None) -> str:
    """Where a row is, for messages.

    Examples:
        >>> row_location("q.csv", 0, line=2), row_location("q.parquet", 0, line=None)
        ('q.csv, line 2', 'q.parquet, row 0')
    """
    return f"{location}, row {index}" if line is None else f"{location}, line {line}"


def digest_of(digests: Iterable[bytes]) -> str:
    """One digest for the questions of a shard, 32 hexadecimal digits.

    Args:
        digests: of its questions, in their order.

    Examples:
        >>> digest_of([])
        'e3b0c44298fc1c149afbf4c8996fb924'
    """
    return hashlib.sha256(b"".join(digests)).hexdigest()[:32]
