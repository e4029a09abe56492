"""The explorer's web application: the page, data of runs, live changes, questions.

Nothing here opens a path that a client gave: runs have ids, and payloads have names. Work that
blocks runs in threads, at most ``THREADS`` at a time.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import anyio
import anyio.to_thread
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from hallutrace.errors import (
    DamagedError,
    HallutraceError,
    InputError,
    MissingExtraError,
    ModelError,
    NotARunError,
    NotInRunError,
    StorageError,
)
from hallutrace.view.explorer.catalog import Catalog
from hallutrace.view.explorer.runs import OpenRuns, Payload
from hallutrace.view.explorer.security import MAX_BODY, Access, Guard
from hallutrace.view.page import page

THREADS = 16
FOOTER = (
    "Attention says where a model looked, not why it answered: read no weight here as an "
    "explanation."
)
_PAYLOAD = "application/octet-stream"
# The most specific class first.
_STATUS: tuple[tuple[type[HallutraceError], int], ...] = (
    (NotInRunError, 404),
    (NotARunError, 404),
    (InputError, 400),
    (ModelError, 400),
    (DamagedError, 409),
    (MissingExtraError, 501),
    (StorageError, 500),
)

Result = TypeVar("Result")


class TooLargeError(HallutraceError):
    """A body with more bytes than the explorer takes."""


@dataclass
class Explorer:
    """What the explorer shows.

    Attributes:
        catalog: runs, evaluations and detectors.
        runs: those that are open.
        access: who may ask.
    """

    catalog: Catalog
    runs: OpenRuns
    access: Access

    def __post_init__(self) -> None:
        self._threads = anyio.CapacityLimiter(THREADS)

    async def in_thread(self, function: Callable[..., Result], *arguments: Any) -> Result:
        """The result of a function that blocks."""
        return await anyio.to_thread.run_sync(function, *arguments, limiter=self._threads)

    def settings(self) -> dict[str, Any]:
        """What the page is told."""
        runs = [{"id": id_, "name": path.name} for id_, path in self.catalog.runs.items()]
        only = {"run": runs[0]["id"]} if len(runs) == 1 else {}
        title = runs[0]["name"] if len(runs) == 1 else "hallutrace"
        return {"title": title, "served": True, "runs": runs, "footer": FOOTER, **only}

    async def show_page(self, _: Request) -> Response:
        """The page itself."""
        text = "".join(page(self.settings()))
        return Response(text, media_type="text/html; charset=utf-8")

    async def show_data(self, request: Request) -> Response:
        """A payload of a run."""
        run, name = request.path_params["run"], request.path_params["name"]
        given = request.query_params.multi_items()
        if len(dict(given)) != len(given):
            raise InputError("Expected each parameter once, got one that comes twice")
        made = await self.in_thread(self.runs.payload, run, name, dict(given))
        return payload_response(request, made)

    def routes(self) -> list[Route]:
        """Addresses and what answers them."""
        return [
            Route("/", self.show_page),
            Route("/data/{run}/{name}", self.show_data),
        ]


def application(explorer: Explorer) -> Guard:
    """The application, behind its guard.

    Args:
        explorer: what is shown.
    """
    told = partial(_told, explorer)
    handlers: dict[Any, Any] = {
        HallutraceError: told,
        404: _nothing_there,
        405: _nothing_there,
        Exception: _fault,  # uvicorn writes its traceback to the terminal
    }
    app = Starlette(routes=explorer.routes(), exception_handlers=handlers)
    return Guard(app, explorer.access)


def payload_response(request: Request, made: Payload) -> Response:
    """A payload, or 304 if the browser has it; compressed in itself, so never again."""
    headers = {"etag": f'"{made.tag}"', "cache-control": "private, no-cache"}
    if request.headers.get("if-none-match") == headers["etag"]:
        return Response(status_code=304, headers=headers)
    return Response(made.content, media_type=_PAYLOAD, headers=headers)


async def json_body(request: Request) -> dict[str, Any]:
    """The JSON object of a POST.

    Raises:
        TooLargeError: more than ``MAX_BODY`` bytes.
        InputError: something else than a JSON object.
    """
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY:
            raise TooLargeError(f"Expected at most {MAX_BODY} bytes")
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise InputError("Expected a JSON object, got something else")
    return content


def message_of(error: HallutraceError, folders: dict[Path, str]) -> str:
    """An error in words, without the places of files.

    Args:
        error: what happened.
        folders: names of folders by their paths.

    Examples:
        >>> message_of(InputError("Expected a file in /data/runs/demo/shards/0.json"), {})
        'Expected a file in 0.json'
    """
    text = " ".join(str(error).split())
    for path in sorted(folders, key=lambda one: -len(str(one))):
        text = text.replace(str(path), folders[path])
    return re.sub(r"(?<![\w.:/\\])(?:[A-Za-z]:[\\/]|[\\/])(?:[^\s\\/'\"`,;]+[\\/])+", "", text)


def status_of(error: HallutraceError) -> int:
    """The HTTP status of an error.

    Examples:
        >>> status_of(NotInRunError("no labels")), status_of(DamagedError("a shard"))
        (404, 409)
    """
    if isinstance(error, TooLargeError):
        return 413
    return next((status for kind, status in _STATUS if isinstance(error, kind)), 500)


async def _told(explorer: Explorer, _: Request, error: Exception) -> Response:
    assert isinstance(error, HallutraceError)
    folders = known_folders(explorer.catalog)
    return JSONResponse({"message": message_of(error, folders)}, status_of(error))


async def _nothing_there(_: Request, error: Any) -> Response:
    return JSONResponse({"message": "Expected an address of the page, got another"}, 404)


async def _fault(_: Request, error: Exception) -> Response:
    return JSONResponse({"message": "the server failed; its terminal says why"}, 500)


def known_folders(catalog: Catalog) -> dict[Path, str]:
    """Names of all folders of the catalog by their paths."""
    made = [one.folder for one in (*catalog.evaluations, *catalog.detectors)]
    return {folder: folder.name for folder in (*catalog.runs.values(), *made)}
