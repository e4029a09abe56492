"""Listening: a socket that is free, and a server that Ctrl-C stops at once."""

from __future__ import annotations

import errno
import logging
import socket
from typing import Any

from hallutrace.errors import InputError
from hallutrace.option_names import parameter
from hallutrace.viewer.explorer.security import is_loopback

PORT = 8765
_TRIED_PORTS = 20  # from PORT on, where no port was asked for
GRACE = 2  # seconds that open requests get after Ctrl-C


def listening_socket(host: str, port: int | None) -> socket.socket:
    """A bound socket.

    Args:
        host: name or address of this machine.
        port: 0 for any that is free; None for the first free one from ``PORT`` on.

    Raises:
        InputError: the port is taken, or the address is not of this machine.

    Examples:
        >>> with listening_socket("127.0.0.1", 0) as bound:
        ...     bound.getsockname()[0]
        '127.0.0.1'
    """
    ports = range(PORT, PORT + _TRIED_PORTS) if port is None else [port]
    for tried in ports:
        try:
            return _bound(host, tried)
        except OSError as error:
            is_taken = error.errno in (errno.EADDRINUSE, errno.EACCES)
            if is_taken and port is None:
                continue
            another = f"choose another {parameter('port')}"
            fix = another if is_taken else f"give {parameter('host')} an address of this machine"
            raise InputError(
                f"Expected to listen on {host}, port {tried}, got: {error.strerror or error} - "
                f"{fix}"
            ) from None
    raise InputError(
        f"Expected a free port from {PORT} to {PORT + _TRIED_PORTS - 1}, got none - choose a "
        f"{parameter('port')}"
    )


def _bound(host: str, port: int) -> socket.socket:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, kind, protocol, _, address = found[0]
    made = socket.socket(family, kind, protocol)
    try:
        if hasattr(socket, "SO_EXCLUSIVEADDRUSE"):  # Windows lets others take a port that is in use
            made.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
        else:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(address)
        made.listen(128)
    except OSError:
        made.close()
        raise
    return made


def address_of(host: str, port: int, token: str | None) -> str:
    """The address to open.

    Examples:
        >>> address_of("::1", 8765, None), address_of("0.0.0.0", 80, "s3")
        ('http://[::1]:8765/', 'http://0.0.0.0:80/?token=s3')
    """
    name = f"[{host}]" if ":" in host else host
    return f"http://{name}:{port}/" + (f"?token={token}" if token else "")


def shown_host(host: str) -> str:
    """The name by which people reach a host: of this machine, where it listens on every address."""
    return socket.gethostname() if host in ("0.0.0.0", "::") else host


def tunnel_hint(host: str, port: int) -> str:
    """The command that leads here from another machine.

    Examples:
        >>> tunnel_hint("127.0.0.1", 8765).startswith("ssh -L 8765:127.0.0.1:8765 ")
        True
    """
    target = host if is_loopback(host) else "localhost"
    target = f"[{target}]" if ":" in target else target
    return f"ssh -L {port}:{target}:{port} {socket.gethostname()}"


def serve(app: Any, bound: socket.socket, closing: Any = None) -> None:
    """Serves until Ctrl-C.

    Args:
        app: the ASGI application.
        bound: of :func:`listening_socket`.
        closing: called with nothing when the server begins to stop.
    """
    import uvicorn

    class Server(uvicorn.Server):  # type: ignore[misc]
        def handle_exit(self, sig: int, frame: Any) -> None:
            if closing is not None:
                closing()
            # Requests that are cut off are no errors.
            logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
            super().handle_exit(sig, frame)

    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,  # addresses may hold the token
        server_header=False,
        date_header=False,
        lifespan="off",
        ws="none",
        timeout_graceful_shutdown=GRACE,
        h11_max_incomplete_event_size=64_000,
    )
    Server(config).run(sockets=[bound])
