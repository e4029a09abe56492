"""One row of a source, whatever its schema, as one question."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass

from hallutrace.questions.rows import (
    BadRow,
    Columns,
    Question,
    RawRow,
    Response,
    UnplacedError,
    spot,
)
from hallutrace.questions.values import (
    checked,
    json_cell,
    kind,
    listed,
    reference,
    response,
    unpacked,
)

CANDIDATES: dict[str, tuple[str, ...]] = {
    "question": ("question", "query", "prompt"),
    "id": ("id", "question_id", "qid"),
    "answers": ("answers", "answer", "references", "right_answer"),
    "context": ("context", "knowledge", "passage"),
    "group": ("group",),
    "response": ("response", "responses", "completion", "output", "generated_answer"),
}
"""Names of columns that are understood without options, best first."""


@dataclass(frozen=True, slots=True)
class Row:
    """A row that was understood: its question, and whether the source itself named it."""

    question: Question
    named: bool
    line: int | None


@dataclass(frozen=True, slots=True)
class Schema:
    """Which columns hold which field: to be tried in order, the first with a value counts."""

    columns: Mapping[str, tuple[str, ...]]
    responses: bool

    def names(self) -> frozenset[str]:
        """Every column that may be read."""
        return frozenset(name for names in self.columns.values() for name in names)

    def read(self, raw: RawRow, place: str) -> Row | BadRow:
        """Turn a row into a question, or into the reason why it is none."""
        identifier: str | None = None
        try:
            if isinstance(raw.values, UnplacedError):
                raise raw.values
            found = self._text(raw.values, "id", numbers=True)
            identifier = found or f"row-{raw.index}"
            question = self._question(raw, raw.values, identifier)
        except UnplacedError as problem:
            return BadRow(
                identifier, raw.index, raw.line, problem.at(spot(place, raw.index, raw.line))
            )
        return Row(question, found is not None, raw.line)

    def _question(self, raw: RawRow, values: Mapping[str, object], identifier: str) -> Question:
        text = self._text(values, "question")
        if text is None:
            column, value = self._find(values, "question")
            raise UnplacedError(
                f"a question in column `{column}`",
                kind(value),
                "write one or remove the row",
            )
        return Question(
            id=identifier,
            question=text,
            references=tuple(dict.fromkeys(self._references(raw, values))),
            context=self._text(values, "context"),
            index=raw.index,
            group=self._text(values, "group", numbers=True) or identifier,
            responses=self._responses(raw, values) if self.responses else (),
        )

    def _find(self, values: Mapping[str, object], field: str) -> tuple[str, object]:
        """The column of a field and what it holds, None where it has none."""
        for name in self.columns[field]:
            if values.get(name) is not None:
                return name, values[name]
        return self.columns[field][0], None

    def _text(self, values: Mapping[str, object], field: str, numbers: bool = False) -> str | None:
        """A field as text; None where it is missing or blank."""
        column, value = self._find(values, field)
        if numbers and isinstance(value, int) and not isinstance(value, bool):
            return str(value)
        if value is not None and not isinstance(value, str):
            wanted = "text or a whole number" if numbers else "text"
            raise UnplacedError(
                f"{wanted} as {field} in column `{column}`",
                kind(value),
                f"mend the row, or map another column with --{field}-column",
            )
        if value is None or not value.strip():
            return None
        return checked(value, column)

    def _references(self, raw: RawRow, values: Mapping[str, object]) -> Iterator[str]:
        column, value = self._find(values, "answers")
        if raw.cells and isinstance(value, str) and value.lstrip()[:1] in ("[", "{"):
            value = json_cell(value, column)
        if isinstance(value, dict):
            value = unpacked(value, column)
        for item in value if isinstance(value, list) else [value]:
            text = reference(item, column)
            # A blank reference matches nothing; keeping it would only pass for an answer.
            if text.strip():
                yield checked(text, column)

    def _responses(self, raw: RawRow, values: Mapping[str, object]) -> tuple[Response, ...]:
        column, value = self._find(values, "response")
        if raw.cells and isinstance(value, str) and value.lstrip().startswith("["):
            # A text may well begin with a bracket ("[1] says"): only a whole list is one.
            with suppress(UnplacedError):
                value = json_cell(value, column)
        # A list of numbers alone is one answer, as token ids.
        items: list[object] = [value]
        if isinstance(value, list) and any(isinstance(item, str | list) for item in value):
            items = value
        return tuple(response(item, column) for item in items)


def resolve(
    mapped: Columns, columns: Iterable[str], filled: Iterable[str], responses: bool
) -> Schema:
    """Decide which columns are read, from the first rows of a source.

    Args:
        mapped: columns that the user named.
        columns: those that the first rows have.
        filled: those of them that hold a value in one of these rows.
        responses: whether the source must have responses.

    Returns:
        The schema. A field that the first rows lack is looked for by all its names later on.

    Raises:
        UnplacedError: a mapped column is missing, or there is no question or response.
    """
    present, full = list(columns), set(filled)
    chosen: dict[str, tuple[str, ...]] = {}
    for field, candidates in CANDIDATES.items():
        if field == "response" and not responses:
            continue
        name = getattr(mapped, field)
        required = field in ("question", "response")
        if name is not None and name not in present:
            raise UnplacedError(
                f"the column `{name}`, as --{field}-column says",
                f"the columns {listed(present)}",
                f"name one of those with --{field}-column",
            )
        here = [known for known in candidates if known in present]
        if name is None and required and not here:
            raise UnplacedError(
                f"a column {' or '.join(f'`{known}`' for known in candidates)}",
                f"the columns {listed(present)}",
                f"name one of those with --{field}-column",
            )
        best = [known for known in here if known in full] or here
        chosen[field] = (name,) if name is not None else tuple(best[:1]) or candidates
    return Schema(chosen, responses)
