"""Waiting for what is passing: a hub that is slow, busy, or gone for a moment."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

T = TypeVar("T")

# Too slow, too early, too many at once, and the server's own troubles.
PASSING_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})
# By name, along the classes of an error: those of requests, httpx, urllib3, aiohttp and Python, of
# which none is imported for this.
PASSING_KINDS = frozenset(
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
# Errors of that kind that say what will not pass: the user chose to be offline, or a bad address.
LASTING_KINDS = frozenset(
    {"OfflineModeIsEnabled", "UnsupportedProtocol", "InvalidURL", "DatasetNotFoundError"}
)


def quiet(_: str) -> None:
    """Says nothing."""


def pause(seconds: float) -> None:
    """Sleeps; a function of its own, so that whoever replaces ``time.sleep`` is heard."""
    time.sleep(seconds)


@dataclass(frozen=True, slots=True)
class Patience:
    """Tries again, after twice the wait each time; no jitter, so that a run is what it was.

    Attributes:
        note: told of each wait.
        sleep: waits so many seconds; Ctrl-C ends it as it ends anything else.
        attempts: tries in all.
        first: seconds of the first wait.
        longest: seconds that no wait is above, whatever a server asks for.
    """

    note: Callable[[str], None] = quiet
    sleep: Callable[[float], None] = pause
    attempts: int = 6
    first: float = 2.0
    longest: float = 60.0

    def call(self, act: Callable[[], T], what: str) -> T:
        """Acts, again and again while the reason why it fails is passing.

        Args:
            act: what may fail.
            what: it is called in the notes, ``loading X``.

        Raises:
            Exception: the error of the last attempt, or the first that is not passing.
        """
        for attempt in range(1, self.attempts):
            try:
                return act()
            except Exception as error:
                if not is_passing(error):
                    raise
                self._wait(attempt, what, error)
        return act()

    def _wait(self, attempt: int, what: str, error: BaseException) -> None:
        asked = _asked_wait(error)
        seconds = min(self.first * 2.0 ** (attempt - 1), self.longest)
        if asked is not None:
            seconds = min(max(seconds, asked), self.longest)
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        reason = reason if len(reason) <= 160 else reason[:157] + "..."
        self.note(
            f"{what}: {reason} - trying again in {seconds:g} s "
            f"(attempt {attempt + 1} of {self.attempts}; Ctrl-C ends the wait)"
        )
        self.sleep(seconds)


def is_passing(error: BaseException) -> bool:
    """Whether an error, or one that it came from, is of the kind that goes away by itself.

    A status that a server gave decides, the nearest one; without any, the kinds of the errors.
    """
    errors = list(_causes(error))
    kinds = {kind.__name__ for one in errors for kind in type(one).__mro__}
    if kinds & LASTING_KINDS:
        return False
    status = next((code for code in map(_status, errors) if code is not None), None)
    if status is not None:
        return status in PASSING_STATUS
    return bool(kinds & PASSING_KINDS)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """An error and those it came from; libraries wrap what the network said in their own."""
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
        status = getattr(error, "status", None)  # as aiohttp has it
    return status if isinstance(status, int) else None


def _asked_wait(error: BaseException) -> float | None:
    """Seconds that a server asks to wait for, where it says so as a number."""
    for one in _causes(error):
        headers = getattr(getattr(one, "response", None), "headers", None)
        value = headers.get("Retry-After") if headers is not None else None
        if isinstance(value, str) and value.strip().isdecimal():
            return float(value)
    return None
