"""Trying again after temporary errors, as of a hub that is slow, busy or unreachable."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

T = TypeVar("T")

# Timeout, too early, too many requests, and server errors.
TEMPORARY_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})
# Names of error classes or of their bases in requests, httpx, urllib3, aiohttp and Python; none of
# these packages has to be imported.
TEMPORARY_ERRORS = frozenset(
    {
        "ConnectionError",
        "ConnectTimeout",
        "ClientConnectionError",
        "IncompleteRead",
        "NewConnectionError",
        "ProtocolError",
        "ReadTimeout",
        "ServerDisconnectedError",
        "Timeout",
        "TimeoutError",
        "TransportError",
    }
)
# Their subclasses that another attempt does not fix: offline mode, or a wrong address.
PERMANENT_ERRORS = frozenset(
    {"OfflineModeIsEnabled", "UnsupportedProtocol", "InvalidURL", "DatasetNotFoundError"}
)


def ignore(_: str) -> None:
    """Drops a note."""


def _sleep(seconds: float) -> None:
    """Looks up ``time.sleep`` at each call, so that tests can replace it."""
    time.sleep(seconds)


@dataclass(frozen=True, slots=True)
class Retry:
    """Calls a function again after temporary errors, with a wait that doubles each time.

    Attributes:
        note: receives one line of text before each wait.
        sleep: waits a number of seconds.
        attempts: number of calls, the first one included.
        first_wait: in seconds.
        longest_wait: in seconds, also where a server asks for more.

    Examples:
        >>> answers = iter([ConnectionError("reset"), "text"])
        >>> def download():
        ...     answer = next(answers)
        ...     if isinstance(answer, Exception):
        ...         raise answer
        ...     return answer
        >>> Retry(note=print, sleep=lambda seconds: None).call(download, "Loading it")
        Loading it: ConnectionError: reset - trying again in 2 s (attempt 2 of 6; Ctrl-C ends the wait)
        'text'
    """  # noqa: E501

    note: Callable[[str], None] = ignore
    sleep: Callable[[float], None] = _sleep
    attempts: int = 6
    first_wait: float = 2.0
    longest_wait: float = 60.0

    def call(self, function: Callable[[], T], task: str) -> T:
        """Calls a function until it returns, or raises an error that is not temporary.

        Args:
            function: without arguments.
            task: its name in the notes, such as ``Loading X``.

        Raises:
            Exception: the error of the last attempt, or the first that is not temporary.
        """
        for attempt in range(1, self.attempts):
            try:
                return function()
            except Exception as error:
                if not is_temporary(error):
                    raise
                self._wait(attempt, task, error)
        return function()

    def _wait(self, attempt: int, task: str, error: BaseException) -> None:
        seconds = max(self.first_wait * 2.0 ** (attempt - 1), _retry_after(error))
        seconds = min(seconds, self.longest_wait)
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        reason = reason if len(reason) <= 160 else reason[:157] + "..."
        self.note(
            f"{task}: {reason} - trying again in {seconds:g} s "
            f"(attempt {attempt + 1} of {self.attempts}; Ctrl-C ends the wait)"
        )
        self.sleep(seconds)


def is_temporary(error: BaseException) -> bool:
    """Whether another attempt may succeed.

    The HTTP status of the error decides, or of the nearest error that it came from; without any
    status, the names of their classes.

    Examples:
        >>> is_temporary(TimeoutError()), is_temporary(ValueError())
        (True, False)
    """
    errors = list(_causes(error))
    names = {base.__name__ for one in errors for base in type(one).__mro__}
    if names & PERMANENT_ERRORS:
        return False
    status = next((code for code in map(_status, errors) if code is not None), None)
    if status is not None:
        return status in TEMPORARY_STATUS
    return bool(names & TEMPORARY_ERRORS)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """An error and those it came from: libraries wrap errors of the network in their own."""
    seen: set[int] = set()
    one: BaseException | None = error
    while one is not None and id(one) not in seen:
        seen.add(id(one))
        yield one
        one = one.__cause__ or one.__context__


def _status(error: BaseException) -> int | None:
    response: Any = getattr(error, "response", None)
    status = getattr(response, "status_code", None)
    if status is None:
        status = getattr(error, "status", None)  # aiohttp
    return status if isinstance(status, int) else None


def _retry_after(error: BaseException) -> float:
    """Seconds of the header Retry-After; 0 without one, or where it is a date."""
    for one in _causes(error):
        headers = getattr(getattr(one, "response", None), "headers", None)
        value = headers.get("Retry-After") if headers is not None else None
        if isinstance(value, str) and value.strip().isdecimal():
            return float(value)
    return 0.0
