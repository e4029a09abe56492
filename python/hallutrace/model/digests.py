"""One digest of all files of a model, read in parallel and cached until a file changes.

Several threads hash the parts of a file with BLAKE2b; the digest of the file is the hash of the
digests of its parts. Digests of large files are cached in the user's cache folder by path, size,
times and inode, so that a checkpoint is not read again at every start.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hallutrace import atomic_files
from hallutrace.cpu_threads import available_cpus
from hallutrace.errors import ModelError
from hallutrace.listed_names import first_listed

PART = 64 * 2**20  # bytes per part; one thread hashes a part
READ = 2**20  # bytes per read
MIN_CACHED_SIZE = 16 * 2**20  # bytes; digests of files of at least this size are cached
NOTIFY_SIZE = 4 * 2**30  # bytes; from this total on, the user is notified before the files are read
# Seconds. A file that was written more recently may be written again within one tick of the file
# system's clock, so that equal times would not mean equal content.
MIN_AGE = 2.0
MAX_THREADS = 8

# Suffixes of the files of a checkpoint that transformers, tokenizers and peft read.
SUFFIXES = frozenset(
    {".bin", ".bpe", ".codes", ".gguf", ".jinja", ".json", ".merges", ".model", ".py"}
    | {".safetensors", ".spm", ".tiktoken", ".txt", ".vocab", ".yaml", ".yml"}
)
# Files that training writes into a checkpoint and that loading does not read.
UNREAD = frozenset(
    {
        "all_results.json",
        "eval_results.json",
        "optimizer.bin",
        "scheduler.bin",
        "train_results.json",
        "trainer_state.json",
        "training_args.bin",
    }
)
WEIGHTS = frozenset({".bin", ".safetensors"})
TEMPLATES = "additional_chat_templates"

Stamp = tuple[int, int, int, int]
"""Size, time of the last write and of the last change of attributes (ns), inode."""


@dataclass(frozen=True)
class FolderDigest:
    """Digest of the files of a folder, with their stamps at the time of reading.

    Attributes:
        folder: folder of the files.
        text: ``folder-`` and 16 hexadecimal digits, the hash of names, sizes and bytes of all
            files; or ``file-`` and 16 digits, the hash of size and bytes of a single file.
        stamps: stamp of each file, by its path relative to the folder.
        only: name of the single file; None for all files of the model.
    """

    folder: Path
    text: str
    stamps: Mapping[str, Stamp]
    only: str | None = None

    def check_unchanged(self) -> None:
        """Raises :class:`ModelError` if files changed, were added or were removed since."""
        now = {name: _stamp(path) for name, path in self._files().items()}
        names = {*now, *self.stamps}
        changed = sorted(name for name in names if now.get(name) != self.stamps.get(name))
        if changed:
            raise ModelError(
                f"Expected the files of {self.folder} to stay while the model is loaded, got "
                f"changes in {first_listed(changed)} - start again once they are complete"
            )

    def _files(self) -> dict[str, Path]:
        return _files_of(self.folder, self.only)

    def check_in_place(self) -> None:
        """Raises :class:`ModelError` if a weight file was overwritten in place.

        On a CPU, weights may be memory-mapped, so that writing to a file changes the model. A
        mapping of a file that was removed or replaced keeps the old content.
        """
        changed = []
        for name, before in self.stamps.items():
            if Path(name).suffix in WEIGHTS:
                now = _stamp(self.folder / name)
                if now is not None and now[3] == before[3] and now[:2] != before[:2]:
                    changed.append(name)
        if changed:
            raise ModelError(
                f"Expected the weights in {self.folder} to stay while they are in use, got writes "
                f"to {first_listed(changed)} - put changed weights into another folder, and start "
                "again"
            )


def digest_folder(
    folder: Path, note: Callable[[str], None] | None = None, only: str | None = None
) -> FolderDigest:
    """Digests the files of a model.

    Args:
        folder: folder of the files; symbolic links are followed, since the hub's cache uses them.
        note: called with a message before many bytes are read.
        only: name of the single file to digest; None for all files of the model.

    Raises:
        ModelError: a file cannot be read.

    Examples:
        >>> from hallutrace.demo import MODEL_FOLDER
        >>> digest_folder(MODEL_FOLDER).text
        'folder-...'
    """
    try:
        files = _files_of(folder, only)
        stamps = {name: stamp for name, path in files.items() if (stamp := _stamp(path))}
        digests = _digests(folder, files, stamps, note)
    except OSError as error:
        raise ModelError(
            f"Expected to read all files of {folder}, got: {error} - check the folder"
        ) from None
    whole = hashlib.blake2b(digest_size=8)
    for name in sorted(stamps):
        # The digest of a single file does not depend on its name.
        label = name if only is None else ""
        whole.update(os.fsencode(f"{label}\0{stamps[name][0]}\0{digests[name]}\n"))
    kind = "folder" if only is None else "file"
    return FolderDigest(folder, f"{kind}-{whole.hexdigest()}", stamps, only)


def digest_code(files: Mapping[str, Path]) -> str:
    """Digest of the names and bytes of small files, 16 hexadecimal digits.

    Args:
        files: path of each file, by the name that is hashed.
    """
    whole = hashlib.blake2b(digest_size=8)
    for name in sorted(files):
        whole.update(os.fsencode(name) + b"\0" + hashlib.blake2b(files[name].read_bytes()).digest())
    return whole.hexdigest()


def model_files(folder: Path) -> dict[str, Path]:
    """Files of a checkpoint by relative path: weights, configuration, tokenizer and code."""
    found = {
        path.name: path
        for path in folder.iterdir()
        if path.suffix in SUFFIXES and path.name not in UNREAD and not path.is_dir()
    }
    nested = list((folder / TEMPLATES).glob("*.jinja"))
    if any(path.suffix == ".py" for path in found.values()):
        # Code of a checkpoint may import from its subfolders.
        nested += [
            path
            for path in folder.rglob("*.py")
            if not any(part.startswith(".") for part in path.relative_to(folder).parts)
        ]
    return found | {path.relative_to(folder).as_posix(): path for path in nested}


def _files_of(folder: Path, only: str | None) -> dict[str, Path]:
    return model_files(folder) if only is None else {only: folder / only}


def _digests(
    folder: Path,
    files: Mapping[str, Path],
    stamps: Mapping[str, Stamp],
    note: Callable[[str], None] | None,
) -> dict[str, str]:
    """The digest of each file, from the cache or computed and added to the cache."""
    cache = _DigestCache.read()
    digests = {name: cache.get(files[name], stamp) for name, stamp in stamps.items()}
    cached = {name: digest for name, digest in digests.items() if digest is not None}
    unknown = {name: (files[name], stamps[name][0]) for name in stamps if name not in cached}
    size = sum(size for _, size in unknown.values())
    if note is not None and size >= NOTIFY_SIZE:
        note(f"Reading the {size / 1e9:.0f} GB of {folder} once, to tell this model from others")
    start_time = time.time()
    computed = _digest_files(unknown)
    entries = {files[name]: (stamps[name], digest) for name, digest in computed.items()}
    cache.add(entries, start_time)
    return cached | computed


def _digest_files(files: Mapping[str, tuple[Path, int]]) -> dict[str, str]:
    """Hexadecimal digests of files, given as path and size; all their parts share one pool."""
    with ThreadPoolExecutor(min(MAX_THREADS, available_cpus())) as pool:
        parts = {
            name: [pool.submit(_digest_part, path, begin) for begin in range(0, max(size, 1), PART)]
            for name, (path, size) in files.items()
        }
        return {
            name: hashlib.blake2b(b"".join(future.result() for future in futures)).hexdigest()[:32]
            for name, futures in parts.items()
        }


def _digest_part(path: Path, begin: int) -> bytes:
    """Digest of at most `PART` bytes from offset ``begin``; hashing releases the GIL."""
    digest = hashlib.blake2b(digest_size=32)
    buffer = memoryview(bytearray(READ))
    with path.open("rb", buffering=0) as file:
        file.seek(begin)
        remaining = PART
        while remaining and (count := file.readinto(buffer[: min(READ, remaining)])):
            digest.update(buffer[:count])
            remaining -= count
    return digest.digest()


class _DigestCache:
    """Digests of large files, in ``digests.json`` of the user's cache folder.

    The cache raises no errors: one that cannot be read counts as empty, and a failed write is
    ignored.
    """

    def __init__(self, path: Path | None, entries: dict[str, list[Any]]) -> None:
        self._path = path
        self._entries = entries

    @classmethod
    def read(cls) -> _DigestCache:
        path = cache_file()
        return cls(path, _entries(path))

    def get(self, path: Path, stamp: Stamp) -> str | None:
        entry = self._entries.get(str(path.resolve()))
        if entry is None or entry[:-1] != list(stamp) or stamp[0] < MIN_CACHED_SIZE:
            return None
        return str(entry[-1])

    def add(self, digests: Mapping[Path, tuple[Stamp, str]], start_time: float) -> None:
        """Adds the files that did not change since ``start_time``, in seconds since the epoch."""
        fresh = {
            str(path.resolve()): [*stamp, digest]
            for path, (stamp, digest) in digests.items()
            if stamp[0] >= MIN_CACHED_SIZE
            and max(stamp[1], stamp[2]) < (start_time - MIN_AGE) * 1e9
            and _stamp(path) == stamp
        }
        if not fresh or self._path is None:
            return
        # Read the cache again, since another process may have written to it.
        kept = {path: entry for path, entry in _entries(self._path).items() if _stamp(Path(path))}
        text = json.dumps({"version": 1, "files": kept | fresh})
        with suppress(OSError):
            atomic_files.write(self._path, text.encode())


def cache_file() -> Path | None:
    """Path of the digest cache; None if the user has no home folder."""
    cache_home = os.environ.get("LOCALAPPDATA" if sys.platform == "win32" else "XDG_CACHE_HOME", "")
    try:
        # The XDG specification requires relative paths to be ignored.
        base = Path(cache_home) if Path(cache_home).is_absolute() else Path.home() / ".cache"
    except RuntimeError:
        return None
    return base / "hallutrace" / "digests.json"


def _entries(path: Path | None) -> dict[str, list[Any]]:
    """The valid entries of a cache file, by path: stamp and digest."""
    try:
        content = json.loads(path.read_bytes()) if path is not None else {}
        files = content["files"] if content["version"] == 1 else {}
        return {
            str(name): entry
            for name, entry in files.items()
            if [type(value) for value in entry] == [int, int, int, int, str]
        }
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return {}


def _stamp(path: Path) -> Stamp | None:
    """Stamp of a file; None for a missing file or a broken link."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return (stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino)
