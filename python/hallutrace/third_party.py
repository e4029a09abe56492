"""Exceptions of third-party code, separated from bugs of this package.

Tokenizers, chat templates and models raise any exception, so a list of classes cannot tell. The
frame that raised decides: an error from outside of this package fails one question, or ends a
command with one line; an error from within it is a bug and keeps its traceback. Two kinds are never
bugs: errors of this package's own classes, and ``RuntimeError``, which torch raises for the tensors
of a model without a frame of its own.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hallutrace.errors import HallutraceError, InputError, MissingExtraError, ModelError

_PACKAGE = str(Path(__file__).parent.resolve())
# Of our own classes, those that concern one question or its model.
_OF_A_QUESTION = (InputError, ModelError)


def is_fatal(error: BaseException) -> bool:
    """Whether an error ends the run; any other fails one question.

    ``PanicException``, which Rust code raises, is a ``BaseException`` and fails one question.

    Examples:
        >>> is_fatal(KeyboardInterrupt()), is_fatal(InputError("an odd question"))
        (True, False)
    """
    if isinstance(error, (KeyboardInterrupt, SystemExit, GeneratorExit)):
        return True
    if isinstance(error, HallutraceError):
        return not isinstance(error, _OF_A_QUESTION)
    return is_ours(error)


def is_ours(error: BaseException) -> bool:
    """Whether an error is a bug of this package.

    Examples:
        >>> is_ours(ValueError("raised nowhere"))
        False
    """
    if isinstance(error, (HallutraceError, RuntimeError, MemoryError)):
        return False
    frames = list(traceback.walk_tb(error.__traceback__))
    if not frames:
        return False
    return Path(frames[-1][0].f_code.co_filename).resolve().is_relative_to(_PACKAGE)


def reason_of(error: BaseException) -> str:
    """An error in one line: of our own classes the message, of others also the class.

    Examples:
        >>> reason_of(KeyError("pad_token"))
        "KeyError: 'pad_token'"
    """
    text = " ".join(str(error).split())
    if isinstance(error, HallutraceError):
        return text
    name = type(error).__name__
    return f"{name}: {text}" if text else name


def traceback_of(error: BaseException) -> str:
    """The traceback of an error as text; empty for errors of our own classes."""
    if isinstance(error, HallutraceError):
        return ""
    return "".join(traceback.format_exception(error))


def without_frames(error: BaseException) -> BaseException:
    """The error without the frames of its traceback and of those that it came from.

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
    """Within it, exceptions of third-party code become one of our errors.

    Args:
        expected: what should have worked, as in ``Expected {expected}, got ...``.
        fix: how to fix it.
        kind: the class of the error.

    Examples:
        >>> with refusing("a chat template that works", "use --chat off"):
        ...     "".missing
        Traceback (most recent call last):
        hallutrace.errors.InputError: Expected a chat template that works, got ... - use --chat off
    """
    try:
        yield
    except BaseException as error:
        if isinstance(error, (HallutraceError, MemoryError, MissingExtraError)) or is_fatal(error):
            raise
        raise kind(f"Expected {expected}, got {reason_of(error)} - {fix}") from error
