"""Work in a thread that tells what happens, as server-sent events; who leaves stops it."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any

from starlette.requests import Request
from starlette.responses import StreamingResponse

from hallutrace.errors import HallutraceError
from hallutrace.viewer.explorer.own_model import StoppedError, Tell

PATIENCE = 0.25  # seconds between two looks whether the page is still there

Work = Callable[[Tell, Callable[[], bool]], None]
"""Called with what tells an event, and with what says whether to stop."""


def event(name: str, content: Any, id_: str | None = None) -> str:
    r"""A server-sent event.

    Args:
        name: of the event.
        content: JSON-able.
        id_: what a browser hands back as ``Last-Event-ID``.

    Examples:
        >>> event("token", {"text": "a"})
        'event: token\ndata: {"text": "a"}\n\n'
    """
    first = f"id: {id_}\n" if id_ else ""
    return f"{first}event: {name}\ndata: {json.dumps(content, allow_nan=False)}\n\n"


def stream(events: AsyncIterator[str]) -> StreamingResponse:
    """An answer of server-sent events."""
    headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
    return StreamingResponse(events, media_type="text/event-stream", headers=headers)


async def followed(
    request: Request,
    work: Work,
    message_of: Callable[[HallutraceError], str],
    is_closing: Callable[[], bool],
) -> AsyncIterator[str]:
    """Runs some work, and yields what it tells; the last event is ``end`` or ``failed``.

    Args:
        request: while its client is there, the work goes on.
        work: what to do, in a thread.
        message_of: an error in words.
        is_closing: whether the server stops.
    """
    stopped = threading.Event()
    loop = asyncio.get_running_loop()
    told: asyncio.Queue[tuple[str, Any]] = asyncio.Queue()

    def tell(name: str, content: Any) -> None:
        with suppress(RuntimeError):  # the server has stopped
            loop.call_soon_threadsafe(told.put_nowait, (name, content))

    def run() -> None:
        try:
            work(tell, stopped.is_set)
            tell("end", {})
        except StoppedError as error:
            tell("failed", {"message": str(error), "stopped": True})
        except HallutraceError as error:
            tell("failed", {"message": message_of(error)})
        except BaseException:
            tell("failed", {"message": "the server failed; its terminal says why"})
            raise

    threading.Thread(target=run, daemon=True).start()
    try:
        name = ""
        while name not in ("end", "failed"):
            if is_closing() or await request.is_disconnected():
                return
            with suppress(asyncio.TimeoutError):
                name, content = await asyncio.wait_for(told.get(), PATIENCE)
                yield event(name, content)
    finally:
        stopped.set()
