"""Responses of one question that stand in rows of their own, gathered while streaming."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

from hallutrace.questions.rows import BadRow, Question, UnplacedError, spot
from hallutrace.questions.schema import Row


@dataclass(frozen=True, slots=True)
class Answered:
    """A question and the rows it came from.

    Attributes:
        question: with the responses of all its rows.
        named: whether the source gave it an id.
        rows: index and line of each.
    """

    question: Question
    named: bool
    rows: tuple[tuple[int, int | None], ...]


@dataclass(slots=True)
class Samples:
    """The rows of one question so far, and bad ones that came between them."""

    first: Row
    more: list[Row] = field(default_factory=list)
    bad: list[BadRow] = field(default_factory=list)

    def belongs(self, row: Row) -> bool:
        """Whether a row is about the same question: by id, or by content where there is none."""
        ours, theirs = self.first.question, row.question
        if row.named or self.first.named:
            return row.named and self.first.named and theirs.id == ours.id
        return theirs.question == ours.question and theirs.context in (ours.context, None)

    def add(self, row: Row, place: str) -> None:
        """Take a row that belongs; it is bad if it contradicts the first one."""
        for name in ("question", "context", "references", "group"):
            ours, theirs = getattr(self.first.question, name), getattr(row.question, name)
            # What a further row leaves out, the first has said; without ids groups always differ.
            optional = not theirs or (name == "group" and theirs == row.question.id)
            if theirs != ours and not (optional and name != "question"):
                self.bad.append(contradiction(row, name, place))
                return
        self.more.append(row)

    def whole(self) -> Iterator[Answered | BadRow]:
        """The question with all its responses, then what was bad: in the order of rows."""
        rows = [self.first, *self.more]
        responses = tuple(said for row in rows for said in row.question.responses)
        question = replace(self.first.question, responses=responses)
        places = tuple((row.question.index, row.line) for row in rows)
        yield Answered(question, self.first.named, places)
        yield from self.bad


def contradiction(row: Row, name: str, place: str) -> BadRow:
    """A row that says otherwise than the first one of its question."""
    question = row.question
    problem = UnplacedError(
        f"the same {name} in all rows of "
        + (f"the id `{question.id}`" if row.named else "one question"),
        "another than in the first one, which stays",
        "give the row an id of its own or remove it",
    )
    return BadRow(
        question.id, question.index, row.line, problem.at(spot(place, question.index, row.line))
    )


def gather(rows: Iterable[Row | BadRow], place: str) -> Iterator[Answered | BadRow]:
    """Join consecutive rows of one question; a bad row between them does not part them.

    Args:
        rows: each with one or more responses.
        place: name of the source, for messages.

    Yields:
        Questions with all their responses, and bad rows.
    """
    current: Samples | None = None
    for row in rows:
        if isinstance(row, BadRow):
            if current is None:
                yield row
            else:
                current.bad.append(row)
        elif current is not None and current.belongs(row):
            current.add(row, place)
        else:
            if current is not None:
                yield from current.whole()
            current = Samples(row)
    if current is not None:
        yield from current.whole()
