"""Sources of questions: rows parsed, duplicates merged, samples of one question joined."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

from hallutrace.option_names import parameter
from hallutrace.questions.file_formats import open_file
from hallutrace.questions.hub_datasets import HUB_PREFIX, HubReader
from hallutrace.questions.registry import RegisteredRows, folder_name, is_registered
from hallutrace.questions.row_parsing import ParsedRow
from hallutrace.questions.rows import (
    BY_SCHEMA,
    BadRow,
    Columns,
    MismatchError,
    Question,
    RawRow,
    RowReader,
)
from hallutrace.questions.sample_rows import QuestionRows, join_samples
from hallutrace.questions.schema_detection import detect_schema
from hallutrace.retry import Retry

FIRST_ROWS = 100
"""Rows looked at before anything runs: they decide the schema."""

DEMO_COUNT = 400
"""Questions in plain `demo`: enough to measure on, asked in under a minute."""


class QuestionSource:
    """Questions in the order of their rows; each iteration reads the source from the start.

    Attributes:
        name: for the folder of a run: `demo`, `demo-50`, a file's stem, a repository's last part.
        merged: identical duplicates that the last, or the ongoing, pass has merged.
    """

    def __init__(
        self, name: str, kind: str, spec: str, reader: RowReader, columns: Columns
    ) -> None:
        self.name, self.merged = name, 0
        self._reader, self._responses = reader, kind == "responses"
        self._identity: dict[str, object] = {"kind": kind, "spec": spec}
        if columns.given():
            self._identity["columns"] = columns.given()
        first = list(islice(read_rows(reader), FIRST_ROWS))
        self._detected = detect_schema(first, columns, self._responses, reader.location)
        self._kind = kind

    @property
    def has_responses(self) -> bool:
        """Whether its questions come with answers, which are replayed."""
        return self._responses

    @property
    def total(self) -> int | None:
        """Number of rows, bad ones and duplicates included, where it is cheaply known."""
        return self._reader.total

    def describe(self) -> list[str]:
        """Lines for the user: which columns are read, and in how many rows right answers are.

        Without right answers there is a warning; for `demo` there are no lines.
        """
        return [] if self._kind == "demo" else self._detected.describe(self._reader.location)

    def identity(self) -> dict[str, object]:
        """What identifies this source, JSON-able: kind, spec, and columns if mapped."""
        return dict(self._identity)

    def __iter__(self) -> Iterator[Question | BadRow]:
        """One pass.

        Yields:
            Every question once and every bad row, ordered by their (first) row.

        Raises:
            InputError: the file or the hub failed on the way.
        """
        self.merged = 0
        location, schema = self._reader.location, self._detected.schema
        rows = (
            schema.read(raw, location) for raw in read_rows(self._reader, schema.layout.names())
        )
        seen: dict[str, bytes] = {}
        # Rows of one question are samples of it only where they carry responses.
        for item in join_samples(rows, location) if self._responses else map(single_row, rows):
            if isinstance(item, BadRow):
                yield item
            else:
                yield from self._admit(item, seen)

    def _admit(self, item: QuestionRows, seen: dict[str, bytes]) -> Iterator[Question | BadRow]:
        """A new question; nothing for a duplicate; bad rows for the same id with other content."""
        question = item.question
        digest = content_digest(question)
        known = seen.get(question.id)
        if known is None:
            seen[question.id] = digest
            yield question
        elif known == digest:
            self.merged += len(item.rows)
        else:
            for index, line in item.rows:
                problem = self._conflict(item)
                yield BadRow.of(problem, self._reader.location, question.id, index, line)

    def _conflict(self, item: QuestionRows) -> MismatchError:
        called = f"the id `{item.question.id}`" if item.has_id else "one question"
        if self._responses:
            return MismatchError(
                f"all rows of {called} one after another",
                "a row of it after other questions",
                "sort the file by id",
            )
        return MismatchError(
            f"one content for {called}",
            "another than in an earlier row, which stays",
            "give the row an id of its own or remove it",
        )


def single_row(row: ParsedRow | BadRow) -> QuestionRows | BadRow:
    """A row that is a question of its own."""
    if isinstance(row, BadRow):
        return row
    return QuestionRows(row.question, row.has_id, ((row.question.index, row.line),))


def content_digest(question: Question) -> bytes:
    """Digest of a question without its id, and without a group that repeats the id (16 bytes)."""
    group = "" if question.group == question.id else question.group
    return replace(question, id="", group=group).digest()[:16]


def read_rows(reader: RowReader, columns: Collection[str] | None = None) -> Iterator[RawRow]:
    """The rows of a reader; errors of the file system become InputErrors."""
    try:
        yield from reader.rows(columns)
    except OSError as error:
        raise MismatchError("a file that can be read", f"{error.strerror or error}", "check it").at(
            reader.location
        ) from error


class DemoReader:
    """The questions of the small model in the package."""

    location = "the demo questions"

    def __init__(self, count: int | None, at_least: int) -> None:
        from hallutrace.demo import read_questions

        self._rows = list(read_questions(count))
        if len(self._rows) < at_least:
            raise MismatchError(
                f"at most {len(self._rows)} demo questions", f"{at_least}", "ask for demo:all"
            ).at(parameter("questions"))

    @property
    def total(self) -> int | None:
        """Number of questions."""
        return len(self._rows)

    def rows(self, columns: Collection[str] | None = None) -> Iterator[RawRow]:
        """All rows in order."""
        return (RawRow(index, None, values) for index, values in enumerate(self._rows))


def open_demo(spec: str, columns: Columns) -> QuestionSource:
    """Open `demo`, `demo:all` or `demo:N`."""
    if columns.given():
        option = parameter(f"{next(iter(columns.given()))}_column")
        raise MismatchError("no columns to map", option, "leave it out").at(
            parameter("questions", spec)
        )
    asked = spec.partition(":")[2] if ":" in spec else str(DEMO_COUNT)
    if asked == "all":
        return QuestionSource("demo-all", "demo", spec, DemoReader(None, 0), columns)
    if not (asked.isascii() and asked.isdigit() and int(asked) > 0):
        raise MismatchError(
            "`demo`, `demo:all` or `demo:N` with N a positive whole number",
            f"`{spec}`",
            "write it as in demo:50",
        ).at(parameter("questions"))
    count = int(asked)
    if spec == "demo":
        return QuestionSource("demo", "demo", spec, DemoReader(count, 0), columns)
    return QuestionSource(f"demo-{count}", "demo", spec, DemoReader(count, count), columns)


def open_questions(
    spec: str, columns: Columns = BY_SCHEMA, retry: Retry | None = None
) -> QuestionSource:
    """Open a source of questions and look at its first rows.

    Args:
        spec: `demo` (400 questions), `demo:all`, `demo:N`, `NAME` or `NAME:ARGUMENT` of a source
            that was registered (:func:`hallutrace.questions.register`), a `.jsonl`, `.json`,
            `.csv`, `.tsv` or `.parquet` file, or `hf:OWNER/NAME/CONFIG/SPLIT`
            (`hf:OWNER/NAME/SPLIT` where there is one configuration, `hf:/FOLDER/CONFIG/SPLIT` for
            a local copy).
        columns: names of columns; those left out are found by schema.
        retry: of what fails for a moment, as when the hub is busy.

    Returns:
        The source; nothing but the first rows has been read.

    Raises:
        InputError: the spec, the file or the data set is not what it should be, a column is
            missing, or there is no good row among the first ones.
        MissingExtraError: `datasets` or `pyarrow` is needed and not installed.

    Examples:
        >>> _ = Path("q.jsonl").write_text('{"question": "Who?", "answer": "Anna"}')
        >>> source = open_questions("q.jsonl")
        >>> [(question.question, question.references) for question in source]
        [('Who?', ('Anna',))]
    """
    if columns.response is not None:
        raise MismatchError(
            "no column of responses among questions",
            parameter("response_column", columns.response),
            f"give the file with {parameter('responses')}",
        ).at(parameter("questions", spec))
    if spec == "demo" or spec.startswith("demo:"):
        return open_demo(spec, columns)
    if spec.startswith(HUB_PREFIX):
        reader = HubReader(spec, retry)
        name = reader.repository.rstrip("/").rpartition("/")[2]
        return QuestionSource(name, "hub", spec, reader, columns)
    if is_registered(spec):
        return QuestionSource(folder_name(spec), "registered", spec, RegisteredRows(spec), columns)
    path = Path(spec)
    return QuestionSource(
        path.stem, "file", path.name, open_file(spec, parameter("questions")), columns
    )


def open_responses(path: str, columns: Columns = BY_SCHEMA) -> QuestionSource:
    r"""Open a file of questions that have been answered already.

    Rows of one id (or, without ids, of one question) that follow each other are further
    samples, equal texts included: sampling may say the same twice. They may leave out context
    and references, which the first row has.

    Args:
        path: a `.jsonl`, `.json`, `.csv`, `.tsv` or `.parquet` file.
        columns: names of columns; those left out are found by schema.

    Returns:
        The source; each of its questions has at least one response.

    Raises:
        InputError: as in :func:`open_questions`, or no column of responses.
        MissingExtraError: Parquet without pyarrow.

    Examples:
        >>> _ = Path("r.csv").write_text("question,response\nWho?,Anna\nWho?,Ben\n")
        >>> [question.responses for question in open_responses("r.csv")]
        [('Anna', 'Ben')]
    """
    file = Path(path)
    reader = open_file(path, parameter("responses"))
    return QuestionSource(file.stem, "responses", file.name, reader, columns)
