"""Sources of questions of one's own: a function that gives rows, by name."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any

from hallutrace.errors import InputError
from hallutrace.questions.rows import MismatchError, Question, RawRow
from hallutrace.registry import Registry
from hallutrace.third_party import refusing

ENTRY_POINTS = "hallutrace.question_sources"
"""The group of entry points by which a package adds sources: ``name = "module:function"``."""

Rows = Callable[[str], "Iterable[Mapping[str, Any] | Question]"]
"""Gives all questions anew each time it is called, with what stands after ``NAME:``."""

_RESERVED = ("demo", "hf")


def _checked(name: str, found: Any) -> Rows:
    if name in _RESERVED:
        raise InputError(f"Expected another name than {' and '.join(_RESERVED)}, got `{name}`")
    if not callable(found):
        raise InputError(
            f"Expected a function that gives questions as the source `{name}`, got "
            f"{type(found).__name__} - give a function of one text"
        )
    function: Rows = found
    return function


SOURCES = Registry("source of questions", ENTRY_POINTS, {}, _checked)


def register(name: str) -> Callable[[Rows], Rows]:
    """Registers a source of questions, as a decorator of a function.

    ``--questions NAME`` and ``--questions NAME:ARGUMENT`` then take its questions.

    Args:
        name: of the source.

    Returns:
        A decorator of a function that takes the argument, a text that is empty unless it is given,
        and gives the questions in the same order at each call: :class:`Question` objects, or
        mappings with the columns that a file has (``question``, ``id``, ``answers``, ``context``,
        ``group``). A run that goes on is refused where they have changed.

    Raises:
        InputError: no proper name, a name that another source has, or something that cannot be
            called.

    Examples:
        >>> from hallutrace.questions import register
        >>> @register("sums")
        ... def sums(argument):
        ...     for a in range(int(argument or 10)):
        ...         yield {"question": f"What is {a} plus {a}?", "answers": [str(2 * a)]}
        >>> SOURCES.remove("sums")
    """

    def decorate(function: Rows) -> Rows:
        return SOURCES.add(name, function)

    return decorate


class RegisteredRows:
    """The rows of a registered source; see :class:`~hallutrace.questions.rows.RowReader`."""

    def __init__(self, spec: str) -> None:
        name, _, self._argument = spec.partition(":")
        self._function, self._name = SOURCES.find(name), name
        self.location = f"the source {spec}"

    @property
    def total(self) -> int | None:
        """Number of rows: not known before they were all read."""
        return None

    def rows(self, columns: Collection[str] | None = None) -> Iterator[RawRow]:
        """All rows in order.

        Raises:
            InputError: the function failed.
        """
        failing = refusing(f"questions of `{self._name}`", "fix that source")
        with failing:
            given = iter(self._function(self._argument))
        index = 0
        while True:
            with refusing(f"question {index} of `{self._name}`", "fix that source"):
                row = next(given, None)
            if row is None:
                return
            yield RawRow(index, None, _values(row))
            index += 1


def is_registered(spec: str) -> bool:
    """Whether a text names a registered source."""
    return spec.partition(":")[0] in SOURCES.names()


def folder_name(spec: str) -> str:
    """What the folder of a run of a source is called."""
    return re.sub(r"[^\w.-]+", "-", spec)


def _values(row: Any) -> dict[str, object] | MismatchError:
    """A row by column."""
    if isinstance(row, Question):
        return {
            "id": row.id,
            "question": row.question,
            "answers": list(row.references),
            "context": row.context,
            "group": row.group,
        }
    if isinstance(row, Mapping):
        return {str(name): value for name, value in row.items()}
    return MismatchError("a Question or a mapping", type(row).__name__, "fix that source")
