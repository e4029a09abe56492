"""Writing of files that exist whole or not at all, also after a kill or a power cut."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from hallutrace.errors import HallutraceError, StorageError


def write(path: Path, content: bytes) -> None:
    """Writes a file, or replaces it, so that readers see the old content or the new, never a part.

    The bytes go to a file beside it first, are synced to the disk, and get the name then. What a
    kill leaves of that file ends in ``.partial``.

    Args:
        path: of the file; its folder is made where it is missing.
        content: all of it.

    Raises:
        OSError: the file system refused; the old file is still there, and no other.

    Example:
        >>> path = Path(folder) / "notes.txt"
        >>> write(path, b"one")
        >>> write(path, b"two")
        >>> path.read_bytes(), sorted(entry.name for entry in path.parent.iterdir())
        (b'two', ['notes.txt'])
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f"{path.name}.{secrets.token_hex(4)}.partial")
    try:
        with scratch.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        scratch.replace(path)
    except BaseException:
        with suppress(OSError):
            scratch.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Syncs the names in a folder to the disk; does nothing on Windows, which cannot.

    Raises:
        OSError: the file system refused.
    """
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def storage_errors(task: str, fix: str) -> Iterator[None]:
    """Within it, an OSError becomes a StorageError; errors of hallutrace stay what they are.

    Args:
        task: what is being done, for "Expected to ...".
        fix: what the user can do about it.

    Raises:
        StorageError: the file system refused.

    Example:
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
