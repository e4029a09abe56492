"""Parsing of one row of a source into a question."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TypedDict

from hallutrace.canonical_json import digest
from hallutrace.option_names import parameter
from hallutrace.questions.cell_values import (
    LONGEST_ID,
    WHOLE,
    check_utf8,
    described,
    identifier,
    parse_response,
)
from hallutrace.questions.columns import ColumnLayout
from hallutrace.questions.context_paragraphs import context_text
from hallutrace.questions.lists_in_text import parse_list_text
from hallutrace.questions.response_facts import generators_of, spans_of
from hallutrace.questions.right_answers import choices_in, right_answers, wrong_answers
from hallutrace.questions.rows import (
    BadRow,
    Generator,
    MismatchError,
    Question,
    RawRow,
    Response,
    Span,
)


class About(TypedDict):
    """What is known of the responses of a row, one each; empty where nothing is."""

    generators: tuple[Generator | None, ...]
    spans: tuple[tuple[Span, ...], ...]


NUMBERED = ("id", "group")
"""Fields whose values may be whole numbers."""


@dataclass(frozen=True, slots=True)
class ParsedRow:
    """A row as a question.

    Attributes:
        question: of the row.
        has_id: whether the source has an id for it.
        line: of the file, from 1; None where there are no lines.
    """

    question: Question
    has_id: bool
    line: int | None


def default_id(question: str, context: str | None) -> str:
    """The id of a question that has none: `q` and 16 hexadecimal digits.

    The digits are the first of the SHA-256 of the canonical JSON `[question, context]`, so the id
    is the same in every file, whatever else is there; equal questions have equal ids.

    Examples:
        >>> default_id("Who?", None) == default_id("Who?", None) != default_id("Who?", "A text.")
        True
    """
    return "q" + digest([question, context]).hex()[:16]


@dataclass(frozen=True, slots=True)
class Schema:
    """How rows of a source are read.

    Attributes:
        layout: which columns hold what.
        responses: whether every row must have a response.
        floats: columns of CSV whose whole numbers all end in `.0`, as pandas writes them.
    """

    layout: ColumnLayout
    responses: bool
    floats: frozenset[str] = frozenset()

    def read(self, raw: RawRow, location: str) -> ParsedRow | BadRow:
        """The row as a question, or as a bad row that names the problem."""
        found: str | None = None
        try:
            if isinstance(raw.values, MismatchError):
                raise raw.values
            values = self._as_whole(raw.values) if self.floats else raw.values
            found = self._name(values, "id")
            question = self._question(raw, values, found)
        except MismatchError as problem:
            return BadRow.of(problem, location, found, raw.index, raw.line)
        return ParsedRow(question, found is not None, raw.line)

    def _question(self, raw: RawRow, values: Mapping[str, object], named: str | None) -> Question:
        text = self._asked(values)
        context = self._context(values)
        identifier = named or default_id(text, context)
        references = right_answers(values, self.layout.answers)
        responses = self._responses(raw, values) if self.responses else ()
        choices = choices_in(values, self.layout.answers)
        return Question(
            id=identifier,
            question=text,
            references=tuple(dict.fromkeys(references)),
            context=context,
            index=raw.index,
            group=self._name(values, "group") or identifier,
            responses=responses,
            choices=tuple(zip(choices.labels, choices.texts, strict=True)) if choices else (),
            incorrect_answers=tuple(dict.fromkeys(self._incorrect(values))),
            **self._about(values, responses),
        )

    def _incorrect(self, values: Mapping[str, object]) -> Iterator[str]:
        """Wrong answers that the source knows."""
        column, value = self._find(values, "incorrect answers")
        return wrong_answers(values, value, column, self.layout.answers)

    def _about(self, values: Mapping[str, object], responses: tuple[Response, ...]) -> About:
        """What made the responses and what was labelled in them, where anything is known."""
        if not responses:
            return {"generators": (), "spans": ()}
        spans_column, spans = self._find(values, "spans")
        found = spans_of(spans, spans_column, responses)
        model, temperature = (self._find(values, field)[::-1] for field in ("model", "temperature"))
        generators = generators_of(model, temperature, len(responses))
        return {
            "generators": tuple(generators) if any(generators) else (),
            "spans": tuple(found) if any(found) else (),
        }

    def _as_whole(self, values: Mapping[str, object]) -> dict[str, object]:
        """The cells with `1969.0` as `1969` where the column is of floats."""
        whole = dict(values)
        for name in self.floats:
            cell = whole.get(name)
            if isinstance(cell, str) and (match := WHOLE.fullmatch(cell)):
                whole[name] = match.group(1)
        return whole

    def _find(self, values: Mapping[str, object], field: str) -> tuple[str, object]:
        """The column of a field and what it holds, None where it has none."""
        columns = self.layout.fields[field]
        filled = (name for name in columns if values.get(name) is not None)
        column = next(filled, columns[0] if columns else "none")
        return column, values.get(column) if columns else None

    def _asked(self, values: Mapping[str, object]) -> str:
        """The question; of an object, its `text` (Natural Questions) or `stem` (ARC)."""
        column, value = self._find(values, "question")
        if isinstance(value, dict):
            value = value.get("text", value.get("stem", value))
        if value is not None and not isinstance(value, str):
            raise MismatchError(
                f"text as question in column `{column}`",
                described(value),
                f"fix the row, or map another column with {parameter('question_column')}",
            )
        if value is None or not value.strip():
            raise MismatchError(
                f"a question in column `{column}`", described(value), "write one or remove the row"
            )
        return check_utf8(value, column)

    def _context(self, values: Mapping[str, object]) -> str | None:
        """The context; None where it is missing or blank."""
        column, value = self._find(values, "context")
        if value is None:
            return None
        text = check_utf8(context_text(value, column), column)
        return text if text.strip() else None

    def _name(self, values: Mapping[str, object], field: str) -> str | None:
        """An id or a group; None where it is missing or blank."""
        column, value = self._find(values, field)
        leave = f"or leave it out with {parameter(f'{field}_column', 'none')}"
        try:
            name = identifier(value)
        except ValueError:
            raise MismatchError(
                f"text or a whole number as {field} in column `{column}`",
                described(value),
                f"fix the row, map another column with {parameter(f'{field}_column')}, {leave}",
            ) from None
        if name is not None and len(name) > LONGEST_ID:
            raise MismatchError(
                f"at most {LONGEST_ID} characters as {field} in column `{column}`",
                f"{len(name):,}",
                f"shorten it, {leave}",
            )
        return None if name is None else check_utf8(name, column)

    def _responses(self, raw: RawRow, values: Mapping[str, object]) -> tuple[Response, ...]:
        column, value = self._find(values, "response")
        if raw.cells and isinstance(value, str):
            # A text may well begin with a bracket ("[1] says"): only a whole list is one.
            with suppress(MismatchError):
                listed = parse_list_text(value, column)
                value = listed if isinstance(listed, list) else value
        # A list of numbers alone is one answer, as token ids.
        items: list[object] = [value]
        if isinstance(value, list) and any(isinstance(item, str | list) for item in value):
            items = value
        return tuple(parse_response(item, column) for item in items)
