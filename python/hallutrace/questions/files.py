"""Rows from a file: JSON lines, CSV or Parquet, read as a stream."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Collection, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

from hallutrace.errors import InputError, MissingExtraError
from hallutrace.questions.rows import RawRow, RowReader, UnplacedError
from hallutrace.questions.values import kind, listed, shortened

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
"""What some editors on Windows put before UTF-8."""


def open_file(name: str, option: str) -> RowReader:
    """The reader for a file, by its extension.

    Args:
        name: path of the file; `~` is the home folder.
        option: where the name was given, for messages.

    Returns:
        A reader that has not touched the content yet.

    Raises:
        InputError: unknown extension, no such file, or a folder.
        MissingExtraError: Parquet without pyarrow.
    """
    path = Path(name).expanduser()
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        also = "`demo`, `demo:all`, `demo:N`, hf:REPO/CONFIG/SPLIT or "
        problem = UnplacedError(
            f"{also if option == '--questions' else ''}a .jsonl, .csv or .parquet file",
            f"`{name}`",
            "rename or convert the file",
        )
        raise InputError(problem.at(option))
    if not path.is_file():
        got = "a folder" if path.is_dir() else "no such file"
        problem = UnplacedError(f"the file `{name}`", got, "check the path")
        raise InputError(problem.at(option))
    return reader(path)


class JsonLines:
    """One JSON object a line; blank lines are skipped."""

    def __init__(self, path: Path) -> None:
        self.path, self.place = path, path.name

    @cached_property
    def total(self) -> int | None:
        """Number of lines that are not blank: one more reading, far cheaper than parsing."""
        with self.path.open("rb") as lines:
            return sum(1 for line in lines if line.strip(b" \t\r\n" + BYTE_ORDER_MARK))

    def rows(self, columns: Collection[str] | None = None) -> Iterator[RawRow]:
        """All rows in order; a line that is no JSON object is a row with a problem."""
        index = 0
        # Bytes, not text: one line that is no UTF-8 must not end the reading of the others.
        with self.path.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                content = line.removeprefix(BYTE_ORDER_MARK) if number == 1 else line
                if content.strip():
                    yield RawRow(index, number, parsed(content.rstrip()))
                    index += 1


def parsed(line: bytes) -> dict[str, object] | UnplacedError:
    """The object on a line, or why there is none."""
    expected, fix = "one JSON object on the line", "mend or remove the line"
    try:
        value = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        got = f"bytes that are no UTF-8 at position {error.start}"
        return UnplacedError(expected, got, "save the file as UTF-8 or mend the line")
    except json.JSONDecodeError as error:
        return UnplacedError(expected, f"invalid JSON ({error.msg} at column {error.colno})", fix)
    except (ValueError, RecursionError):
        # Numbers of thousands of digits, objects nested a thousand deep.
        return UnplacedError(expected, "JSON beyond what can be read", fix)
    return value if isinstance(value, dict) else UnplacedError(expected, kind(value), fix)


class Csv:
    """Comma-separated values with a header; an empty cell is a missing value."""

    total = None

    def __init__(self, path: Path) -> None:
        self.path, self.place = path, path.name

    def rows(self, columns: Collection[str] | None = None) -> Iterator[RawRow]:
        """All rows in order; one with too many or too few cells is a row with a problem."""
        # A byte that is no UTF-8 becomes half a surrogate pair, which `checked` finds: only
        # the row that needs it is lost.
        with self.path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as text:
            reader = csv.reader(text)
            header: list[str] | None = None
            index = 0
            for line, cells in records(reader):
                if cells == []:
                    continue
                if header is None:
                    header = self._header(cells)
                else:
                    yield RawRow(index, line, row_of(header, cells), cells=True)
                    index += 1

    def _header(self, cells: list[str] | UnplacedError) -> list[str]:
        if isinstance(cells, UnplacedError):
            raise InputError(cells.at(f"{self.place}, line 1"))
        names = [cell.strip() for cell in cells]
        twice = [name for name in dict.fromkeys(names) if name and names.count(name) > 1]
        if twice:
            problem = UnplacedError(
                "a header that names each column once",
                f"{listed(twice)} more than once",
                "rename the columns",
            )
            raise InputError(problem.at(f"{self.place}, line 1"))
        return names


def records(reader: Any) -> Iterator[tuple[int, list[str] | UnplacedError]]:
    """Each record with the line it begins on; the reader goes on after one it cannot read."""
    while True:
        line = reader.line_num + 1
        try:
            yield line, next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            fix = "close the quotes; long texts are safer in .jsonl or .parquet"
            yield line, UnplacedError("a row of CSV", f"what cannot be read ({error})", fix)


def row_of(
    header: list[str], cells: list[str] | UnplacedError
) -> dict[str, object] | UnplacedError:
    """Cells by the names of their columns."""
    if isinstance(cells, UnplacedError):
        return cells
    if len(cells) != len(header):
        fix = "put text with commas or line breaks into quotes"
        return UnplacedError(f"{len(header)} cells, as in the header", f"{len(cells)}", fix)
    return {name: cell or None for name, cell in zip(header, cells, strict=True) if name}


class Parquet:
    """An Apache Parquet file, read batch by batch."""

    BATCH = 256

    def __init__(self, path: Path) -> None:
        try:
            import pyarrow.parquet
        except ImportError as error:
            raise MissingExtraError.of("pyarrow", "data", "questions in Parquet") from error
        self.path, self.place, self._parquet = path, path.name, pyarrow.parquet

    @cached_property
    def total(self) -> int | None:
        """Number of rows, from the footer."""
        with self._open() as file:
            return int(file.metadata.num_rows)

    def rows(self, columns: Collection[str] | None = None) -> Iterator[RawRow]:
        """All rows in order."""
        index = 0
        with self._open() as file:
            # Other columns, such as whole articles, stay on the disk.
            names = [n for n in file.schema_arrow.names if columns is None or n in columns]
            batches = file.iter_batches(batch_size=self.BATCH, columns=names)
            while (batch := self._read(lambda: next(batches, None))) is not None:
                for values in rows_of(batch):
                    yield RawRow(index, None, values)
                    index += 1

    def _open(self) -> Any:
        return self._read(lambda: self._parquet.ParquetFile(self.path))

    def _read(self, step: Callable[[], Any]) -> Any:
        try:
            return step()
        # pyarrow's errors are OSError or ValueError, of kinds that differ between versions.
        except (OSError, ValueError) as error:
            problem = UnplacedError(
                "an Apache Parquet file",
                f"what cannot be read as one ({shortened(str(error), 120)})",
                "check that the file is whole",
            )
            raise InputError(problem.at(self.place)) from error


def rows_of(batch: Any) -> Iterator[dict[str, object] | UnplacedError]:
    """Each row of a record batch; text that is no UTF-8 costs its own row alone."""
    try:
        yield from batch.to_pylist()
    except UnicodeDecodeError:
        for position in range(batch.num_rows):
            try:
                yield from batch.slice(position, 1).to_pylist()
            except UnicodeDecodeError:
                yield UnplacedError(
                    "text in UTF-8", "bytes that are none", "mend or remove the row"
                )


READERS: dict[str, Callable[[Path], RowReader]] = {
    ".jsonl": JsonLines,
    ".csv": Csv,
    ".parquet": Parquet,
}
