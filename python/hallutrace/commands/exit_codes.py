"""Error messages and exit codes for exceptions that end a command.

==============================================  =================================================
exception                                       message, exit code
==============================================  =================================================
``HallutraceError``                             ``Error: ...``; 2
arguments that typer refuses                    usage and ``Error: ...``; 2
the file system refused (full, no permission)   ``Error: ...`` with the reason and the file; 2
Ctrl-C                                          ``Stopped.``; 130
anything else: a bug of hallutrace              its traceback, versions, where to report it; 1
==============================================  =================================================
"""

from __future__ import annotations

import errno
import platform
import traceback
from importlib.metadata import PackageNotFoundError, metadata
from typing import Any

import typer

from hallutrace.commands.console import ERR, plain
from hallutrace.errors import HallutraceError
from hallutrace.escaping import without_middle
from hallutrace.package_versions import version_of

MISTAKE, FAULT, STOPPED = 2, 1, 130
LONGEST = 10_000  # characters of a message
LONGEST_TRACEBACK = 50_000
PACKAGES = ("hallutrace", "torch", "transformers")

# The base of the exceptions of arguments; typer carries click, or imports it, by its version.
_ArgumentError: Any = typer.BadParameter.__mro__[2]

# Errors of the file system, not of the code that used it.
_REFUSALS = {
    errno.EACCES,
    errno.EDQUOT,
    errno.EFBIG,
    errno.EIO,
    errno.ELOOP,
    errno.EMFILE,
    errno.ELOOP,
    errno.ENAMETOOLONG,
    errno.ENFILE,
    errno.ENOSPC,
    errno.ENOTDIR,
    errno.EPERM,
    errno.EROFS,
    errno.ESTALE,
}


def report_error(error: BaseException) -> int:
    """Prints on standard error what ended a command.

    Args:
        error: what was raised; no ``SystemExit``.

    Returns:
        The exit code.
    """
    if isinstance(error, HallutraceError):
        return _mistake(str(error))
    if isinstance(error, _ArgumentError):
        return _report_arguments(error)
    if isinstance(error, KeyboardInterrupt | typer.Abort):
        ERR.print("\nStopped.")
        return STOPPED
    if isinstance(error, OSError) and error.errno in _REFUSALS:
        where = f": {plain(str(error.filename))}" if error.filename else ""
        return _mistake(
            f"Expected to read and write files, got: {error.strerror}{where} - fix that, "
            "and run the same command again"
        )
    lines = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    ERR.print(without_middle(lines, LONGEST_TRACEBACK), end="")
    ERR.print(fault_line())
    return FAULT


def fault_line() -> str:
    """A line that calls a traceback a fault of hallutrace, with versions and where to report it."""
    ours, *others = (version_of(name) or "not installed" for name in PACKAGES)
    versions = ", ".join(map(" ".join, zip(PACKAGES[1:], others, strict=True)))
    url = _report_url()
    where = f"at {url}" if url else "to the maintainers"
    return (
        f"This is a fault of hallutrace {ours} (Python "
        f"{platform.python_version()}, {versions}), not of your command - report it {where} with "
        "the lines above"
    )


def _mistake(text: str) -> int:
    # Further lines of a message are set in, so that none looks like a message of its own.
    lines = without_middle(text, LONGEST).replace("\n", "\n  ")
    ERR.print(f"Error: {lines}")
    return MISTAKE


def _report_arguments(error: Any) -> int:
    if type(error).__name__ == "NoArgsIsHelpError":  # the help is printed when it is made
        return MISTAKE
    context = getattr(error, "ctx", None)
    if context is not None:
        ERR.print(context.get_usage())
        ERR.print(f"Try '{context.command_path} {context.help_option_names[0]}' for help.\n")
    return _mistake(error.format_message())


def _report_url() -> str | None:
    """The address for faults in the metadata of the package, or else that of its source."""
    try:
        entries = metadata("hallutrace").get_all("Project-URL") or []
    except PackageNotFoundError:
        return None
    urls = {
        label.strip().lower(): url.strip()
        for label, _, url in (str(entry).partition(",") for entry in entries)
    }
    for label in ("issues", "bug tracker", "bugs", "repository", "source", "homepage"):
        if label in urls:
            return urls[label]
    return None
