"""`hallutrace explore`: runs, looked at in a browser."""

from __future__ import annotations

import importlib.util
import os
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hallutrace.commands.common_options import Device, Plugins, TrustRemoteCode
from hallutrace.commands.console import OUT, plain, styled
from hallutrace.errors import InputError, MissingExtraError
from hallutrace.paths import expanded

if TYPE_CHECKING:
    import socket

    from hallutrace.viewer.explorer.security import Access


def run_explore(
    folders: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Runs, evaluations and detectors, or folders that hold such (default: runs).",
            metavar="[RUN|DIR]...",
            parser=expanded,
            show_default=False,
        ),
    ] = None,
    host: Annotated[
        str,
        typer.Option(
            help="Address to listen on. One that other machines can reach asks for a token.",
            metavar="HOST",
        ),
    ] = "127.0.0.1",
    port: Annotated[
        int | None,
        typer.Option(
            help="Port; 0 takes any that is free (default: the first free one from 8765 on).",
            metavar="N",
            min=0,
            max=65535,
        ),
    ] = None,
    token: Annotated[
        bool,
        typer.Option(
            "--token",
            help="Ask for a token on the loopback too: on a machine that others work on as well.",
        ),
    ] = False,
    device: Device = "auto",
    trust_remote_code: TrustRemoteCode = False,
    open_browser: Annotated[bool, typer.Option("--open", help="Open a browser.")] = False,
    plugins: Plugins = None,
) -> None:
    """Look at runs in a browser: all views, live progress, questions to a run's own model.

    Nothing leaves this machine, and only this machine can connect unless `--host` says otherwise.
    Ctrl-C stops it.
    """
    for package in ("starlette", "uvicorn"):
        if importlib.util.find_spec(package) is None:
            raise MissingExtraError.of(package, "explore", "`hallutrace explore`")
    from hallutrace.viewer.explorer.catalog import Catalog
    from hallutrace.viewer.explorer.own_model import OwnModel
    from hallutrace.viewer.explorer.security import Access
    from hallutrace.viewer.explorer.server import Explorer, application
    from hallutrace.viewer.explorer.serving import listening_socket, serve

    roots = folders or [Path("runs")]
    catalog = Catalog(roots)
    if not catalog.runs:
        named = ", ".join(map(str, roots))
        raise InputError(
            f"Expected runs in {named}, got none - give the folder of a run, or one that holds "
            "runs; `hallutrace extract` makes one"
        )
    with listening_socket(host, port) as bound:
        access = Access.of(host, bound.getsockname()[1], token)
        _print_address(access, len(catalog.runs), bound, open_browser)
        explorer = Explorer.of(catalog, access, OwnModel(device, trust_remote_code, _quiet))
        # The first page finds what is known of the runs already.
        threading.Thread(target=explorer.look_ahead, daemon=True).start()
        try:
            with suppress(KeyboardInterrupt):
                serve(application(explorer), bound, explorer.close)
        finally:
            explorer.asker.close()
    OUT.print("Stopped.")
    _end_threads()


def _end_threads() -> None:
    """Ends the process at once where a thread still computes what nobody waits for."""
    own = threading.current_thread()
    if any(one is not own and not one.daemon for one in threading.enumerate()):
        sys.stdout.flush()
        os._exit(0)


def _quiet() -> None:
    from hallutrace.commands.library_warnings import quiet_libraries

    quiet_libraries(is_small=False)


def _print_address(access: Access, runs: int, bound: socket.socket, open_browser: bool) -> None:
    from hallutrace.viewer.explorer.serving import address_of, shown_host, tunnel_hint

    address = address_of(shown_host(access.host), access.port, access.token)
    shown = f"{runs} run{'' if runs == 1 else 's'}"
    OUT.print(styled(f"{shown}, looked at in a browser: ", (plain(address), "bold")))
    OUT.print(
        f"From another machine: {plain(tunnel_hint(access.host, access.port))}, then open "
        f"{address_of('localhost', access.port, access.token)} there."
    )
    OUT.print("Ctrl-C stops it.")
    if open_browser:
        import webbrowser

        threading.Timer(0.5, webbrowser.open, [address]).start()
