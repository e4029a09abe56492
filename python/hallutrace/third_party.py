"""What other people's code raises, told apart from faults of this package.

Tokenizers, chat templates and models raise what they like: lists of exceptions would only guess.
The frame that raised decides instead. An error that was raised outside of this package costs a
question, or ends a command with one line; an error that was raised within it is a fault of ours
and keeps its traceback. Two kinds are never a fault of ours: errors of this package's own classes,
which are meant, and ``RuntimeError``, which torch raises for the tensors of a model without a frame
of its own.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hallutrace.errors import HallutraceError, InputError, MissingExtraError, ModelError

_PACKAGE = str(Path(__file__).parent.resolve())
# Of our own classes, those that tell of a question or its model alone.
_OF_A_QUESTION = (InputError, ModelError)


def is_fatal(error: BaseException) -> bool:
    """Whether an error ends the run instead of costing a question.

    ``PanicException``, which Rust code raises, is a ``BaseException`` and yet costs a question.
    """
    if isinstance(error, (KeyboardInterrupt, SystemExit, GeneratorExit)):
        return True
    if isinstance(error, HallutraceError):
        return not isinstance(error, _OF_A_QUESTION)
    return is_ours(error)


def is_ours(error: BaseException) -> bool:
    """Whether an error was raised by this package without being meant."""
    if isinstance(error, (HallutraceError, RuntimeError, MemoryError)):
        return False
    frames = list(traceback.walk_tb(error.__traceback__))
    if not frames:
        return False
    return Path(frames[-1][0].f_code.co_filename).resolve().is_relative_to(_PACKAGE)


def reason_of(error: BaseException) -> str:
    """An error in one line: its message alone where it is meant, else with its type."""
    text = " ".join(str(error).split())
    if isinstance(error, HallutraceError):
        return text
    name = type(error).__name__
    return f"{name}: {text}" if text else name


def traceback_of(error: BaseException) -> str:
    """The traceback of an error as text; nothing for one that is meant."""
    if isinstance(error, HallutraceError):
        return ""
    return "".join(traceback.format_exception(error))


def without_frames(error: BaseException) -> BaseException:
    """The error without the frames that it and those it came from passed through.

    Frames keep their variables alive, tensors among them.
    """
    seen: list[BaseException] = []
    waiting: list[BaseException | None] = [error]
    while waiting:
        one = waiting.pop()
        if one is not None and one not in seen:
            seen.append(one)
            waiting += [one.__cause__, one.__context__]
            one.__traceback__ = None
    return error


@contextmanager
def refusing(expected: str, fix: str, kind: type[HallutraceError] = InputError) -> Iterator[None]:
    """Within it, what others raise becomes one of our errors.

    Args:
        expected: what was expected of them, as in ``Expected {expected}, got ...``.
        fix: how to fix it.
        kind: the class of the error.
    """
    try:
        yield
    except BaseException as error:
        if isinstance(error, (HallutraceError, MemoryError, MissingExtraError)) or is_fatal(error):
            raise
        raise kind(f"Expected {expected}, got {reason_of(error)} - {fix}") from error
