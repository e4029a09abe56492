"""What was read of a file, kept until its time or size changes."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

Content = TypeVar("Content")


class FileCache(Generic[Content]):
    """Reads files, each once for every (path, time, size).

    Args:
        reader: gives the content of a file; what it raises of ``OSError`` and ``ValueError`` counts
            as a file that cannot be read.

    Examples:
        >>> path = Path(folder) / "a.txt"
        >>> _ = path.write_text("one")
        >>> cache = FileCache(lambda path: path.read_text())
        >>> cache.read(path), cache.read(path.with_name("none"))
        ('one', None)
    """

    def __init__(self, reader: Callable[[Path], Content]) -> None:
        self._reader = reader
        self._known: dict[Path, tuple[tuple[int, int], Content | None]] = {}
        self._lock = threading.Lock()

    def read(self, path: Path) -> Content | None:
        """The content; None if there is no such file, or none that can be read."""
        try:
            status = path.stat()
        except OSError:
            with self._lock:
                self._known.pop(path, None)
            return None
        stamp = (status.st_mtime_ns, status.st_size)
        with self._lock:
            known = self._known.get(path)
        if known is not None and known[0] == stamp:
            return known[1]
        try:
            content: Content | None = self._reader(path)
        except (OSError, ValueError, RecursionError):
            content = None
        with self._lock:
            self._known[path] = (stamp, content)
        return content
