"""Joining of rows that are samples (responses) of one question, while streaming."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from hallutrace.questions.row_parsing import ParsedRow
from hallutrace.questions.rows import BadRow, MismatchError, Question


@dataclass(frozen=True, slots=True)
class QuestionRows:
    """A question and the rows it came from.

    Attributes:
        question: with the responses of all its rows.
        named: whether the source gave it an id.
        rows: index and line of each.
    """

    question: Question
    has_id: bool
    rows: tuple[tuple[int, int | None], ...]


@dataclass(slots=True)
class SampleRows:
    """The rows of one question so far, and bad ones that came between them."""

    first: ParsedRow
    more: list[ParsedRow] = field(default_factory=list)
    bad: list[BadRow] = field(default_factory=list)

    def belongs(self, row: ParsedRow) -> bool:
        """Whether a row has the same question: by id, or by content where there is no id."""
        ours, theirs = self.first.question, row.question
        if row.has_id or self.first.has_id:
            return row.has_id and self.first.has_id and theirs.id == ours.id
        return theirs.question == ours.question and theirs.context in (ours.context, None)

    def add(self, row: ParsedRow, location: str) -> None:
        """Take a row that belongs; it is bad if it contradicts the first one."""
        for name in ("question", "context", "references", "group"):
            ours, theirs = getattr(self.first.question, name), getattr(row.question, name)
            # A later row may leave out what the first one has; without ids groups always differ.
            optional = not theirs or (name == "group" and theirs == row.question.id)
            if theirs != ours and not (optional and name != "question"):
                self.bad.append(contradiction(row, name, location))
                return
        self.more.append(row)

    def whole(self) -> Iterator[QuestionRows | BadRow]:
        """The question with all its responses, then what was bad: in the order of rows."""
        rows = [self.first, *self.more]
        responses = tuple(text for row in rows for text in row.question.responses)
        question = replace(
            self.first.question,
            responses=responses,
            generators=_joined(rows, "generators", None),
            spans=_joined(rows, "spans", ()),
        )
        places = tuple((row.question.index, row.line) for row in rows)
        yield QuestionRows(question, self.first.has_id, places)
        yield from self.bad


def _joined(rows: list[ParsedRow], name: str, nothing: object) -> tuple[Any, ...]:
    """What is known of each response of several rows; empty where nothing is of any."""
    known = [
        getattr(row.question, name) or (nothing,) * len(row.question.responses) for row in rows
    ]
    whole = tuple(one for of_row in known for one in of_row)
    return whole if any(whole) else ()


def contradiction(row: ParsedRow, name: str, location: str) -> BadRow:
    """The bad row for one that contradicts the first one of its question."""
    question = row.question
    problem = MismatchError(
        f"the same {name} in all rows of "
        + (f"the id `{question.id}`" if row.has_id else "one question"),
        "another than in the first one, which stays",
        "give the row an id of its own or remove it",
    )
    return BadRow.of(problem, location, question.id, question.index, row.line)


def join_samples(
    rows: Iterable[ParsedRow | BadRow], location: str
) -> Iterator[QuestionRows | BadRow]:
    """Join consecutive rows of one question; a bad row between them does not part them.

    Args:
        rows: each with one or more responses.
        location: name of the source, for messages.

    Yields:
        Questions with all their responses, and bad rows.
    """
    current: SampleRows | None = None
    for row in rows:
        if isinstance(row, BadRow):
            if current is None:
                yield row
            else:
                current.bad.append(row)
        elif current is not None and current.belongs(row):
            current.add(row, location)
        else:
            if current is not None:
                yield from current.whole()
            current = SampleRows(row)
    if current is not None:
        yield from current.whole()
