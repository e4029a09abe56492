"""Rows from JSON: an object a line, or one list of objects."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from functools import cached_property
from pathlib import Path

from hallutrace.errors import InputError
from hallutrace.questions.cell_values import described, shown_name
from hallutrace.questions.rows import MismatchError, RawRow

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
"""What some editors on Windows put before UTF-8."""

BLANK = b" \t\r\n" + BYTE_ORDER_MARK
ENCODING_FIX = "save the file as UTF-8, as with iconv -f LATIN1 -t UTF-8, or fix the line"


class JsonLines:
    """One JSON object a line; blank lines are skipped."""

    def __init__(self, path: Path) -> None:
        self.path, self.location = path, path.name

    @cached_property
    def total(self) -> int | None:
        """Number of lines that are not blank: one more reading, far cheaper than parsing."""
        with self.path.open("rb") as lines:
            return sum(1 for line in lines if line.strip(BLANK))

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


class JsonFile:
    """A list of JSON objects, or, as many files of this name hold, an object a line."""

    def __init__(self, path: Path) -> None:
        self.path, self.location = path, path.name
        self._lines = JsonLines(path)
        self._count: int | None = None

    @property
    def total(self) -> int | None:
        """Number of objects; of a list, once it has been read."""
        return self._count if self._is_list() else self._lines.total

    def rows(self, columns: Collection[str] | None = None) -> Iterator[RawRow]:
        """All rows in order; the whole list is in memory while they are read."""
        if not self._is_list():
            self._check_lines()
            yield from self._lines.rows()
            return
        items = self._list()
        self._count = len(items)
        for index, item in enumerate(items):
            if isinstance(item, dict):
                yield RawRow(index, None, item)
            else:
                problem = MismatchError("an object", described(item), "fix or remove it")
                yield RawRow(index, None, problem)

    def _is_list(self) -> bool:
        return self._begin().startswith(b"[")

    def _begin(self) -> bytes:
        """The first line that is not blank, without space before it."""
        with self.path.open("rb") as lines:
            return next((line.lstrip(BLANK) for line in lines if line.strip(BLANK)), b"")

    def _check_lines(self) -> None:
        """Refuses one object over several lines, which holds its rows somewhere within."""
        if isinstance(parsed(self._begin().rstrip()), dict):
            return
        try:
            whole = self._whole()
        except InputError:
            return
        raise MismatchError(
            "a list of objects, or one object a line",
            described(whole),
            "write the list in it into a file of its own",
        ).at(self.location)

    def _list(self) -> list[object]:
        whole = self._whole()
        return whole if isinstance(whole, list) else [whole]

    def _whole(self) -> object:
        expected = "a list of JSON objects"
        try:
            return decoded(self.path.read_bytes().removeprefix(BYTE_ORDER_MARK))
        except UnicodeDecodeError as error:
            got = f"bytes that are not UTF-8 at position {error.start}"
            problem = MismatchError(expected, got, ENCODING_FIX.replace("line", "text"))
        except json.JSONDecodeError as error:
            got = f"invalid JSON ({error.msg} at line {error.lineno}, column {error.colno})"
            problem = MismatchError(expected, got, "fix the file")
        except KeyTwiceError as error:
            problem = MismatchError(expected, str(error), "remove one of the two")
        except (ValueError, RecursionError):
            problem = MismatchError(expected, "JSON beyond what can be read", "fix the file")
        raise problem.at(self.location)


class KeyTwiceError(Exception):
    """An object that has a key twice, so that its value is ambiguous."""


def once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """The object of these pairs."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in found if names.count(name) > 1)
        raise KeyTwiceError(f"`{shown_name(twice)}` twice in one object")
    return found


def decoded(content: bytes) -> object:
    """The value of a JSON text in UTF-8."""
    return json.loads(content.decode("utf-8"), object_pairs_hook=once)


def parsed(line: bytes) -> dict[str, object] | MismatchError:
    """The object on a line, or the problem with the line.

    Examples:
        >>> parsed(b'{"question": "who?"}')
        {'question': 'who?'}
    """
    expected, fix = "one JSON object on the line", "fix or remove the line"
    try:
        value = decoded(line)
    except UnicodeDecodeError as error:
        got = f"bytes that are not UTF-8 at position {error.start}"
        return MismatchError(expected, got, ENCODING_FIX)
    except json.JSONDecodeError as error:
        return MismatchError(expected, f"invalid JSON ({error.msg} at column {error.colno})", fix)
    except KeyTwiceError as error:
        return MismatchError(expected, str(error), fix)
    except (ValueError, RecursionError):
        # Numbers of thousands of digits, objects nested a thousand deep.
        return MismatchError(expected, "JSON beyond what can be read", fix)
    return value if isinstance(value, dict) else MismatchError(expected, described(value), fix)
