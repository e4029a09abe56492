"""The explorer's web application: the page, data of runs, live changes, questions.

Nothing here opens a path that a client gave: runs have ids, and payloads have names. Work that
blocks runs in threads, at most ``THREADS`` at a time.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import anyio
import anyio.to_thread
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from hallutrace.detect import load
from hallutrace.detect.provenance import TrainingTraces
from hallutrace.errors import HallutraceError, InputError
from hallutrace.store.folder import Run
from hallutrace.viewer.explorer.ablating import Ablater
from hallutrace.viewer.explorer.answers import (
    fault,
    html_page,
    kept_payload,
    nothing_there,
    payload,
)
from hallutrace.viewer.explorer.asking import Asker
from hallutrace.viewer.explorer.bodies import bounded, json_body, payloads_of, state_of
from hallutrace.viewer.explorer.catalog import Catalog
from hallutrace.viewer.explorer.comparison import manifest_differences
from hallutrace.viewer.explorer.live import INTERVAL, Watch
from hallutrace.viewer.explorer.own_model import OwnModel, Question, Tell
from hallutrace.viewer.explorer.runs import OpenRuns
from hallutrace.viewer.explorer.saved_pages import saved_page
from hallutrace.viewer.explorer.security import Access, Guard
from hallutrace.viewer.explorer.streams import event, followed, stream
from hallutrace.viewer.explorer.told_errors import known_folders, message_of, status_of
from hallutrace.viewer.page import FOOTER, page
from hallutrace.viewer.payload import pack
from hallutrace.viewer.sensitivity import score_sensitivity

THREADS = 16
MOST_STREAMS = 32
HEARTBEAT = 15.0  # seconds after which a stream says that there is nothing new
CLOSING = 0.25  # seconds after which a stream sees that the server stops
LONGEST_QUESTION = 8_000  # characters
LONGEST_CONTEXT = 200_000  # characters

Result = TypeVar("Result")


@dataclass
class Explorer:
    """What the explorer shows.

    Attributes:
        catalog: runs, evaluations and detectors.
        runs: those that are open.
        access: who may ask.
        watch: where all runs stand.
        asker: asks the models of runs.
        is_closing: whether the server stops, which ends all streams.
    """

    catalog: Catalog
    runs: OpenRuns
    access: Access
    watch: Watch
    asker: Asker
    is_closing: bool = False

    @classmethod
    def of(cls, catalog: Catalog, access: Access, model: OwnModel | None = None) -> Explorer:
        """With nothing opened yet; ``model`` loads the models that are asked."""
        runs, watch = OpenRuns(catalog), Watch(catalog)
        return cls(catalog, runs, access, watch, Asker(catalog, runs, model or OwnModel()))

    def __post_init__(self) -> None:
        self._threads = anyio.CapacityLimiter(THREADS)
        self._streams = 0

    def look_ahead(self) -> None:
        """Finds out where the runs stand, and opens the run if there is one alone."""
        self.watch.changes(None)
        if len(self.catalog.runs) == 1:
            with suppress(HallutraceError):  # the page tells what is wrong with it
                self.runs.viewed(*self.catalog.runs)

    def close(self) -> None:
        """Ends all streams."""
        self.is_closing = True

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
        return html_page("".join(page(self.settings())))

    async def show_data(self, request: Request) -> Response:
        """A payload of a run."""
        run, name = request.path_params["run"], request.path_params["name"]
        given = request.query_params.multi_items()
        if len(dict(given)) != len(given):
            raise InputError("Expected each parameter once, got one that comes twice")
        made = await self.in_thread(self.runs.payload, run, name, dict(given))
        return kept_payload(request, made)

    async def show_runs(self, _: Request) -> Response:
        """Where all runs stand, and a cursor for what follows."""
        changes = await self.in_thread(self.watch.changes, None)
        return payload(await self.in_thread(pack, changes))

    async def show_changes(self, request: Request) -> Response:
        """What changes from now on, as server-sent events; each has a cursor as its id."""
        if self._streams >= MOST_STREAMS:
            raise InputError(f"Expected at most {MOST_STREAMS} pages that follow runs, got more")
        cursor = request.headers.get("last-event-id") or request.query_params.get("after")
        return stream(self._changes(request, cursor))

    async def _changes(self, request: Request, cursor: str | None) -> AsyncIterator[str]:
        self._streams += 1
        try:
            yield f"retry: {int(2000 * INTERVAL)}\n\n"
            quiet = 0.0
            while not (self.is_closing or await request.is_disconnected()):
                changes = await self.in_thread(self.watch.changes, cursor)
                if changes["runs"] or changes["gone"]:
                    cursor, quiet = changes["cursor"], 0.0
                    yield event("runs", changes, cursor)
                elif quiet >= HEARTBEAT:
                    quiet = 0.0
                    yield ": nothing new\n\n"
                quiet += INTERVAL
                for _ in range(round(INTERVAL / CLOSING)):
                    if not self.is_closing:
                        await anyio.sleep(CLOSING)
        finally:
            self._streams -= 1

    async def show_differences(self, request: Request) -> Response:
        """What differs between the manifests of two runs."""
        names = (request.path_params["one"], request.path_params["other"])
        one, other = (Run(self.runs.folder(name)) for name in names)
        found = await self.in_thread(manifest_differences, one, other)
        return payload(pack(found))

    async def show_asking(self, request: Request) -> Response:
        """What can be asked of a run."""
        about = await self.in_thread(self.asker.about, request.path_params["run"])
        return payload(pack(about))

    async def ask(self, request: Request) -> Response:
        """Asks the model of a run; what happens comes as server-sent events."""
        given = await json_body(request)
        run = bounded(given, "run", 200)
        detector = bounded(given, "detector", 200, may_lack=True)
        question = Question(
            bounded(given, "question", LONGEST_QUESTION) or "",
            bounded(given, "context", LONGEST_CONTEXT, may_lack=True),
        )

        def work(tell: Tell, is_stopped: Callable[[], bool]) -> None:
            self.asker.ask(str(run), question, detector, tell, is_stopped)

        return stream(followed(request, work, self.told, lambda: self.is_closing))

    async def show_sensitivity(self, request: Request) -> Response:
        """What the score of a trace reads."""
        run, detector = request.path_params["run"], request.path_params["detector"]
        key = request.query_params.get("trace", "")
        return payload(await self.in_thread(self._sensitivity, run, detector, key))

    def _sensitivity(self, run: str, detector: str, key: str) -> bytes:
        folder = self.asker.detector_folder(run, detector)
        assert folder is not None  # an address has a detector
        trace = self.runs.viewed(run).trace(key)
        store = self.runs.viewed(self.asker.base_of(run)).store
        return pack(score_sensitivity(load(folder), trace, store, TrainingTraces.read(folder)))

    async def ablate(self, request: Request) -> Response:
        """What the model does without a layer or a head, as server-sent events."""
        given = await json_body(request)
        run, key = bounded(given, "run", 200) or "", bounded(given, "trace", 10_000) or ""
        detector, layer = bounded(given, "detector", 200, may_lack=True), given.get("layer")
        if layer is not None and type(layer) is not int:
            raise InputError("Expected a number or nothing as `layer`, got something else")

        def work(tell: Tell, is_stopped: Callable[[], bool]) -> None:
            folder = self.asker.detector_folder(run, detector)
            viewed = self.runs.viewed(run)
            Ablater(self.asker.model).ablate(viewed, key, layer, folder, tell, is_stopped)

        return stream(followed(request, work, self.told, lambda: self.is_closing))

    async def save(self, request: Request) -> Response:
        """A view as one file: the page with the payloads that the view has used."""
        given = await json_body(request)
        run = bounded(given, "run", 200) or ""
        wanted, kept = payloads_of(given.get("payloads")), state_of(given.get("state"))
        text = await self.in_thread(saved_page, self.runs, run, wanted, kept, FOOTER)
        return html_page(text, "hallutrace.html")

    def told(self, error: HallutraceError) -> str:
        """An error in words, without the places of files."""
        return message_of(error, known_folders(self.catalog))

    def routes(self) -> list[Route]:
        """Addresses and what answers them."""
        return [
            Route("/", self.show_page),
            Route("/data/{run}/{name}", self.show_data),
            Route("/runs", self.show_runs),
            Route("/events", self.show_changes),
            Route("/differences/{one}/{other}", self.show_differences),
            Route("/ask/{run}", self.show_asking),
            Route("/save", self.save, methods=["POST"]),
            Route("/ask", self.ask, methods=["POST"]),
            Route("/sensitivity/{run}/{detector}", self.show_sensitivity),
            Route("/ablate", self.ablate, methods=["POST"]),
        ]


def application(explorer: Explorer) -> Guard:
    """The application, behind its guard.

    Args:
        explorer: what is shown.
    """
    told = partial(_told, explorer)
    handlers: dict[Any, Any] = {
        HallutraceError: told,
        404: nothing_there,
        405: nothing_there,
        Exception: fault,  # uvicorn writes its traceback to the terminal
    }
    app = Starlette(routes=explorer.routes(), exception_handlers=handlers)
    return Guard(app, explorer.access)


async def _told(explorer: Explorer, _: Request, error: Exception) -> Response:
    assert isinstance(error, HallutraceError)
    return JSONResponse({"message": explorer.told(error)}, status_of(error))
