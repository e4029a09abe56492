"""Rows of CSV and TSV files, read strictly: a malformed row is a bad row.

Python's reader is lenient by default: a quote that is never closed takes the rest of the file
into one cell. Here it is an error that names the line where the quote opens. After an extra quote
nothing more is read, because text within cells and outside of them could not be told apart.

Not detected: an extra quote that another one closes at the end of a later cell. Such a file is
well-formed, and the rows between are one cell of text.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from hallutrace.questions.cell_values import check_utf8, name_list
from hallutrace.questions.rows import MismatchError, RawRow

LONGEST_CELL = 2**24
"""Characters; a longer cell is taken for a quote that is not closed."""

DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}
SPACED_QUOTE = re.compile(r'[ \t]+".*"\s*', re.DOTALL)
"""A cell with a space before its opening quote, so that the quotes do not enclose it."""


class Csv:
    """Comma-separated values with a header; an empty cell is a missing value."""

    total = None
    delimiter = ","
    has_bare_quotes = False

    def __init__(self, path: Path) -> None:
        self.path, self.location = path, path.name

    def rows(self, columns: Collection[str] | None = None) -> Iterator[RawRow]:
        """All rows in order; one with too many or too few cells is a row with a problem."""
        # The limit is the module's own, for all readers. It is raised and never lowered, so that
        # others who read at the same time meet no limit that they do not know.
        csv.field_size_limit(max(csv.field_size_limit(), LONGEST_CELL))
        # A byte that is no UTF-8 becomes half a surrogate pair, which `checked` finds: only
        # the row that needs it is lost.
        with self.path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as text:
            header: list[str] | None = None
            index = 0
            for line, last, cells in records(text, self.delimiter, self.has_bare_quotes):
                if cells == []:
                    continue
                if header is None:
                    header = self._header(line, cells)
                else:
                    values = row_of(header, cells, unread(line, last))
                    yield RawRow(index, line, values, cells=True)
                    index += 1

    def _header(self, line: int, cells: list[str] | MismatchError) -> list[str]:
        location = f"{self.location}, line {line}"
        if isinstance(cells, MismatchError):
            raise cells.at(location)
        names = [cell.strip() for cell in cells]
        try:
            for number, name in enumerate(names, start=1):
                check_utf8(name, f"number {number}")
            self._check_delimiter(names)
        except MismatchError as problem:
            raise problem.at(location) from None
        twice = [name for name in dict.fromkeys(names) if name and names.count(name) > 1]
        if twice:
            expected = "a header that names each column once"
            got = f"{name_list(twice)} more than once"
            raise MismatchError(expected, got, "rename the columns").at(location)
        return names

    def _check_delimiter(self, names: list[str]) -> None:
        """Refuses a header that another delimiter divides into more columns."""
        for other, called in DELIMITERS.items():
            columns = sum(name.count(other) for name in names) + 1
            if other != self.delimiter and columns > len(names):
                rename = ", or rename it to .tsv" if other == "\t" else ""
                rename = ", or rename it to .csv" if other == "," else rename
                raise MismatchError(
                    f"columns separated by {DELIMITERS[self.delimiter]}",
                    f"columns separated by {called}",
                    f"save the file with {DELIMITERS[self.delimiter]}{rename}",
                )


class Tsv(Csv):
    """Tab-separated values; as CSV, but that quotes within a cell are common and left alone."""

    delimiter = "\t"
    has_bare_quotes = True


class Lines:
    """The lines of a file as a reader asks for them, and those of the record it is at."""

    def __init__(self, text: Iterator[str]) -> None:
        self.record: list[str] = []
        self._text = text

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = next(self._text)
        self.record.append(line)
        return line


def records(
    text: Iterator[str], delimiter: str = ",", has_bare_quotes: bool = False
) -> Iterator[tuple[int, int, list[str] | MismatchError]]:
    r"""Each record with its first line (where a quote opens that is wrong) and its last one.

    Args:
        text: lines with their ends.
        delimiter: of cells.
        has_bare_quotes: whether a cell without quotes around it may hold any number of them.

    Examples:
        >>> list(records(iter(["question,answer\n", '"who, me?",Anna\n'])))
        [(1, 1, ['question', 'answer']), (2, 2, ['who, me?', 'Anna'])]
    """
    lines = Lines(text)
    reader: Any = csv.reader(lines, delimiter=delimiter, strict=True)
    while True:
        first = reader.line_num + 1
        lines.record.clear()
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            opened, last = first + open_quote(lines.record, delimiter), reader.line_num
            goes_on = len(lines.record) == 1 and not odd_quotes(lines.record)
            end = last if goes_on else last + sum(1 for _ in text)
            yield opened, end, unreadable(str(error), opened, last, unread(first, end))
            if goes_on:
                continue
            return
        last = reader.line_num
        is_odd = odd_quotes(lines.record) and not has_bare_quotes
        yield first, last, checked_cells(cells, is_odd, unread(first, last))


def unread(first: int, last: int) -> str:
    """What to say of the lines that are lost with a row."""
    return f"; lines {first} to {last} are not read" if last > first else ""


def odd_quotes(lines: list[str]) -> bool:
    """Whether a record holds one quote more than pairs of them."""
    return sum(line.count('"') for line in lines) % 2 == 1


def checked_cells(cells: list[str], is_odd: bool, lost: str) -> list[str] | MismatchError:
    """The cells, unless they say that the record is not what it was meant to be."""
    if is_odd:
        fix = 'put the cell into quotes and write its quotes twice, as in "5"" wide"'
        return MismatchError("quotes in pairs", "an odd number of them" + lost, fix)
    if any("\0" in cell for cell in cells):
        fix = "remove it; save the file as UTF-8 text"
        return MismatchError("a row of text", "a zero byte" + lost, fix)
    if any(SPACED_QUOTE.fullmatch(cell) for cell in cells):
        got = "a space before a quote" + lost
        return MismatchError("quotes right after the delimiter", got, "remove the space")
    return cells


def unreadable(error: str, opened: int, last: int, lost: str) -> MismatchError:
    """What to say of a record that could not be read.

    Args:
        error: the reader's.
        opened: line where the quote opens.
        last: line at which the reader gave up.
        lost: lines that are not read because of it.
    """
    if "unexpected end" in error:
        got = "a quote that opens in it and is never closed"
    elif "limit" in error:
        got = f"a cell of more than {LONGEST_CELL:,} characters that begins in it"
    elif "expected after" in error:
        where = f"in line {last}, " if last > opened else ""
        got = f"a quote that opens in it and closes {where}within a cell"
    else:
        got = error
    fix = 'close the quote, and write quotes within a cell twice ("")'
    return MismatchError("a row whose quotes are closed", got + lost, fix)


def open_quote(lines: list[str], delimiter: str) -> int:
    """The number of the line, from 0, where the quote opens that ends a record in an error.

    Follows the reader: a quote opens at the beginning of a cell, closes where it is not doubled,
    and has to be followed by the end of the cell.
    """
    is_inside, is_begin, opened = False, True, 0
    for number, line in enumerate(lines):
        at = 0
        while at < len(line):
            if is_inside:
                at = line.find('"', at)
                if at < 0:
                    break
                if line[at + 1 : at + 2] == '"':
                    at += 2
                    continue
                is_inside = False
                after = line[at + 1 : at + 2]
                if after and after not in f"{delimiter}\r\n":
                    return opened
            elif line[at] == '"' and is_begin:
                is_inside, opened = True, number
            is_begin = line[at] == delimiter
            at += 1
    return opened


def row_of(
    header: list[str], cells: list[str] | MismatchError, lost: str
) -> dict[str, object] | MismatchError:
    """Cells by the names of their columns; empty ones beyond the header are left out.

    Examples:
        >>> row_of(["id", "question"], ["1", ""], "")
        {'id': '1', 'question': None}
    """
    if isinstance(cells, MismatchError):
        return cells
    extra = cells[len(header) :]
    if len(cells) < len(header) or any(extra):
        fix = "put text with delimiters or line breaks into quotes"
        got = f"{len(cells)}{lost}"
        return MismatchError(f"{len(header)} cells, as in the header", got, fix)
    return {name: cell or None for name, cell in zip(header, cells, strict=False) if name}
