"""Answers of the explorer's server: pages, payloads, and what is said when there is none."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from hallutrace.viewer.explorer.runs import Payload

_PAYLOAD = "application/octet-stream"


def html_page(text: str, file_name: str | None = None) -> Response:
    """A page that is shown, or saved as a file of this name.

    Args:
        text: the page.
        file_name: ASCII; None shows it.
    """
    saved = {"content-disposition": f'attachment; filename="{file_name}"'} if file_name else {}
    return Response(text, media_type="text/html; charset=utf-8", headers=saved)


def payload(content: bytes) -> Response:
    """A payload that may be another one the next time.

    Args:
        content: of :func:`hallutrace.viewer.payload.pack`.
    """
    return Response(content, media_type=_PAYLOAD)


def kept_payload(request: Request, made: Payload) -> Response:
    """A payload, or 304 if the browser has it; compressed in itself, so never again.

    Args:
        request: whose ``if-none-match`` says what the browser has.
        made: the payload with its tag.
    """
    headers = {"etag": f'"{made.tag}"', "cache-control": "private, no-cache"}
    if request.headers.get("if-none-match") == headers["etag"]:
        return Response(status_code=304, headers=headers)
    return Response(made.content, media_type=_PAYLOAD, headers=headers)


async def nothing_there(_: Request, error: Exception) -> Response:
    """What an address that is none gets."""
    return JSONResponse({"message": "Expected an address of the page, got another"}, 404)


async def fault(_: Request, error: Exception) -> Response:
    """What a request gets on which the server failed."""
    return JSONResponse({"message": "the server failed; its terminal says why"}, 500)
