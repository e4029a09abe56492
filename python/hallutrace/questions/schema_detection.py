"""The schema of a source, found in its first rows, and its description for the user."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from hallutrace.errors import InputError
from hallutrace.option_names import parameter
from hallutrace.questions.cell_values import WHOLE, name_list
from hallutrace.questions.columns import find_columns
from hallutrace.questions.row_parsing import ParsedRow, Schema
from hallutrace.questions.rows import BadRow, Columns, MismatchError, Question, RawRow, row_location


@dataclass(frozen=True, slots=True)
class DetectedSchema:
    """A schema, and the first rows as it reads them.

    Attributes:
        schema: for all rows.
        rows: the first rows.
    """

    schema: Schema
    rows: tuple[ParsedRow | BadRow, ...]

    def describe(self, location: str) -> list[str]:
        """Lines for the user: which columns are read, and right answers or a warning.

        Args:
            location: name of the source.
        """
        layout = self.schema.layout
        ignored = [name for name in layout.present if name not in layout.names()]
        more = f"; not read: {name_list(ignored)}" if ignored else ""
        return [f"Read from {location}: {'; '.join(self._used())}{more}.", self._answers(location)]

    def _questions(self) -> list[Question]:
        return [row.question for row in self.rows if isinstance(row, ParsedRow)]

    def _used(self) -> Iterator[str]:
        """Each field with its column."""
        layout = self.schema.layout
        is_named = any(row.has_id for row in self.rows if isinstance(row, ParsedRow))
        for field, columns in (*layout.fields.items(), ("right answers", layout.answers.columns)):
            here = [name for name in columns if name in layout.present]
            if field == "id" and not is_named:
                yield "ids made of question and context"
            elif here:
                yield f"{field} from {name_list(here)}"
        if layout.answers.choices:
            yield f"choices from {name_list([layout.answers.choices])}, not shown in the prompt"
        if self.schema.floats:
            yield f"1969.0 in {name_list(sorted(self.schema.floats))} as 1969"

    def _answers(self, location: str) -> str:
        """How many rows have right answers, or a warning."""
        answers, rows = self.schema.layout.answers, f"the first {len(self.rows)} rows"
        found = [question.references for question in self._questions() if question.references]
        if not answers.columns:
            return f"No right answers, as {parameter('answers_column', 'none')} says."
        if found:
            return f"Right answers in {len(found)} of {rows}.{self._words(found)}"
        judged = ""
        if answers.judged and not self.schema.responses:
            answer, verdict = answers.judged
            judged = (
                f" {name_list([answer])} is not taken for one, as {name_list([verdict])} says "
                f"whether it is right: replay it with {parameter('responses')}, or take it all "
                f"the same with {parameter('answers_column', answer)}."
            )
        return (
            f"Warning: no right answers in {rows} of {location}, so a person or a judge has to "
            f"label what is answered.{judged} Name their column with "
            f"{parameter('answers_column')}, or say that there are none with "
            f"{parameter('answers_column', 'none')}."
        )

    def _words(self, found: Sequence[tuple[str, ...]]) -> str:
        """A note where all right answers are one of two words."""
        words = {text.casefold() for references in found for text in references}
        if words <= {"yes", "no"}:
            return " All are yes or no (true and false are read so)."
        if words <= {"true", "false"}:
            return f" All are the words true or false: ask for these with {parameter('prompt')}."
        return ""


def detect_schema(
    first: Sequence[RawRow], columns: Columns, responses: bool, location: str
) -> DetectedSchema:
    """Find the schema in the first rows, and refuse a source in which all of these are bad.

    Args:
        first: rows of the source.
        columns: those the user mapped.
        responses: whether every row must have a response.
        location: name of the source, for messages.

    Raises:
        InputError: no rows, a column missing, or not one good row among the first ones.
    """
    if not first:
        fix = "check that it is the right one"
        raise MismatchError("rows with questions", "none", fix).at(location)
    values = [raw.values for raw in first if not isinstance(raw.values, MismatchError)]
    present = dict.fromkeys(name for row in values for name in row)
    filled = {name for row in values for name, value in row.items() if value is not None}
    if isinstance(problem := first[0].values, MismatchError) and not values:
        where = row_location(location, first[0].index, first[0].line)
        raise InputError(_all_bad(len(first), location, problem.message(where)))
    try:
        layout = find_columns(columns, present, filled, responses)
    except MismatchError as problem:
        raise problem.at(location) from None
    numbers = {*layout.fields["id"], *layout.fields["group"], *layout.answers.columns}
    schema = Schema(layout, responses, frozenset(floats(first, numbers & filled)))
    read = tuple(schema.read(raw, location) for raw in first)
    bad = [row for row in read if isinstance(row, BadRow)]
    if len(bad) == len(first):
        raise InputError(_all_bad(len(bad), location, bad[0].error))
    return DetectedSchema(schema, read)


def _all_bad(count: int, location: str, error: str) -> str:
    return (
        f"Expected questions, got {count} bad rows and no good one at the beginning, "
        f"in {location} - fix the file; the first says: {error}"
    )


def floats(first: Sequence[RawRow], names: Iterable[str]) -> Iterator[str]:
    """The columns of CSV in which every number is whole and ends in `.0`.

    pandas writes them so where a column of whole numbers has gaps. A column that also holds
    2.5 or a text is another thing, and stays as it is written.
    """
    for name in names:
        cells = [
            cell
            for raw in first
            if raw.cells and not isinstance(raw.values, MismatchError)
            if isinstance(cell := raw.values.get(name), str) and cell.strip()
        ]
        if cells and all(WHOLE.fullmatch(cell) for cell in cells):
            yield name
