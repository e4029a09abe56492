"""Writing of files that exist whole or not at all, also after a kill or a power cut."""

from __future__ import annotations

import os
import secrets
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from hallutrace.errors import HallutraceError, StorageError

ON_WINDOWS = os.name == "nt"
OPEN_ATTEMPTS = 8  # of replacing a file that another process reads: 1.3 seconds in all


def write(path: Path, content: bytes) -> None:
    """Writes a file, or replaces it, so that readers see the old content or the new, never a part.

    The bytes go to a file beside it first, are synced to the disk, and get the name then. What a
    kill leaves of that file ends in ``.partial``.

    Args:
        path: of the file; its folder is made where it is missing.
        content: all of it.

    Raises:
        OSError: the file system refused; the old file is still there, and no other.

    Examples:
        >>> path = Path(folder) / "notes.txt"
        >>> write(path, b"one")
        >>> write(path, b"two")
        >>> path.read_bytes(), sorted(entry.name for entry in path.parent.iterdir())
        (b'two', ['notes.txt'])
    """
    write_pieces(path, [content])


def write_pieces(path: Path, pieces: Iterable[bytes]) -> None:
    """As :func:`write`, of content that is not in memory as a whole.

    Args:
        path: of the file.
        pieces: of its content, in order. What they raise leaves the old file as it is.

    Raises:
        OSError: the file system refused.

    Examples:
        >>> path = Path(folder) / "squares.txt"
        >>> write_pieces(path, (b"%d " % n**2 for n in range(4)))
        >>> path.read_text()
        '0 1 4 9 '
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f"{path.name}.{secrets.token_hex(4)}.partial")
    try:
        with scratch.open("xb") as file:
            for piece in pieces:
                file.write(piece)
            file.flush()
            _sync(file.fileno())
        replace(scratch, path)
    except BaseException:
        with suppress(OSError):
            scratch.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def append_line(path: Path, content: bytes) -> None:
    r"""Appends a line to a log that readers follow, in one write.

    A kill may leave a part of a line at the end of the file. The next line then begins anew, so
    that a reader loses that part alone. Nothing is synced: a power cut may take the last lines.

    Args:
        path: of the file; it and its folder are made where they are missing.
        content: of the line, without a newline.

    Raises:
        OSError: the file system refused.

    Examples:
        >>> path = Path(folder) / "log.jsonl"
        >>> _ = path.write_bytes(b'{"whole": 1}\n{"torn')
        >>> append_line(path, b'{"next": 2}')
        >>> path.read_bytes().splitlines()
        [b'{"whole": 1}', b'{"torn', b'{"next": 2}']
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab+", buffering=0) as file:
        is_torn = False
        if file.seek(0, os.SEEK_END):
            file.seek(-1, os.SEEK_END)
            is_torn = file.read(1) != b"\n"
        file.write(b"\n" * is_torn + content + b"\n")


def replace(source: Path, path: Path) -> None:
    """Gives a file a name that another may have, also while a reader has the other open.

    Raises:
        OSError: the file system refused.
    """
    _while_open(lambda: source.replace(path))


def remove(path: Path) -> None:
    """Removes a file that may be missing, also while a reader has it open.

    Raises:
        OSError: the file system refused.
    """
    _while_open(lambda: path.unlink(missing_ok=True))


def _while_open(action: Callable[[], object]) -> None:
    """Windows refuses to replace or remove a file that is open elsewhere: readers close it soon."""
    for attempt in range(OPEN_ATTEMPTS):
        try:
            action()
            return
        except PermissionError:
            if not ON_WINDOWS or attempt == OPEN_ATTEMPTS - 1:
                raise
            time.sleep(0.01 * 2**attempt)


def sync_folder(folder: Path) -> None:
    """Syncs the names in a folder to the disk; does nothing on Windows, which cannot.

    Raises:
        OSError: the file system refused.
    """
    if ON_WINDOWS:
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        _sync(handle)
    finally:
        os.close(handle)


def _sync(handle: int) -> None:
    """Syncs a file or a folder; on macOS `fsync` alone leaves bytes in the cache of the drive."""
    if sys.platform == "darwin":
        import fcntl

        try:
            fcntl.fcntl(handle, fcntl.F_FULLFSYNC)
            return
        except OSError:
            pass  # a file system that has no such request, as over a network
    os.fsync(handle)


@contextmanager
def storage_errors(task: str, fix: str) -> Iterator[None]:
    """Within it, an OSError becomes a StorageError; errors of hallutrace stay what they are.

    Args:
        task: what is being done, for "Expected to ...".
        fix: what the user can do about it.

    Raises:
        StorageError: the file system refused.

    Examples:
        >>> with storage_errors("read notes.txt", "choose another file"):
        ...     raise OSError(13, "Permission denied")
        Traceback (most recent call last):
        hallutrace.errors.StorageError: Expected to read notes.txt, got: Permission denied - choose another file
    """  # noqa: E501
    try:
        yield
    except HallutraceError:
        raise
    except OSError as error:
        raise StorageError(f"Expected to {task}, got: {error.strerror or error} - {fix}") from None
