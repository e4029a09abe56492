"""Locks between threads: of functions that change global state, and of a model."""

from __future__ import annotations

import functools
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ParamSpec, TypeVar

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

_MODELS: weakref.WeakKeyDictionary[Any, threading.RLock] = weakref.WeakKeyDictionary()
_MODELS_LOCK = threading.Lock()


def one_at_a_time(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """A decorator: while a thread runs the function, other threads that call it wait."""
    lock = threading.RLock()

    @functools.wraps(function)
    def locked(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        with lock:
            return function(*args, **kwargs)

    return locked


@contextmanager
def exclusive(model: Any) -> Iterator[None]:
    """A context in which no other thread captures or generates with ``model``; others wait.

    A capture changes the model's attention implementation, which would affect generation in
    another thread.
    """
    with _MODELS_LOCK:
        lock = _MODELS.setdefault(model, threading.RLock())
    with lock:
        yield
