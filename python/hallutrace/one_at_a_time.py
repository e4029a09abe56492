"""What changes state of the whole process is done by one thread at a time."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import ParamSpec, TypeVar

Given = ParamSpec("Given")
Result = TypeVar("Result")


def one_at_a_time(function: Callable[Given, Result]) -> Callable[Given, Result]:
    """A function that other threads wait for until it is done."""
    lock = threading.RLock()

    @functools.wraps(function)
    def locked(*args: Given.args, **kwargs: Given.kwargs) -> Result:
        with lock:
            return function(*args, **kwargs)

    return locked
