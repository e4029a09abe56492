"""One digest for all bytes of a model's files: read in parallel, and remembered while they stay.

A file is hashed in parts (BLAKE2b) by several threads, and its digest is the hash of those of its
parts. Digests of large files are remembered in the user's cache folder by path, size, times and
inode, so that a checkpoint is read whole once and not at every start.
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

PART = 64 * 2**20  # bytes that one thread hashes
READ = 2**20  # bytes of one read
REMEMBERED = 16 * 2**20  # size from which the digest of a file is remembered
TOLD = 4 * 2**30  # bytes from which it is said that they are read
# A file that was written this many seconds ago or less may be written again within the same tick
# of the file system's clock, so its times do not tell its content.
SETTLED = 2.0
MOST_THREADS = 8

# What transformers, tokenizers and peft read of a checkpoint.
SUFFIXES = frozenset(
    {".bin", ".bpe", ".codes", ".gguf", ".jinja", ".json", ".merges", ".model", ".py"}
    | {".safetensors", ".spm", ".tiktoken", ".txt", ".vocab", ".yaml", ".yml"}
)
# What training leaves beside a checkpoint and nothing reads to load the model.
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


def quiet(_: str) -> None:
    """Says nothing."""


@dataclass(frozen=True)
class FolderDigest:
    """What the files of a folder came to when they were read.

    Attributes:
        folder: of the files.
        text: ``folder-`` and 16 hexadecimal digits, of the names, sizes and bytes of all files;
            ``file-`` and those of one file.
        stamps: of each file, by its name within the folder.
        only: the one file that counts; None where all of them do.
    """

    folder: Path
    text: str
    stamps: Mapping[str, Stamp]
    only: str | None = None

    def check_unchanged(self) -> None:
        """Refuses files that changed since they were digested.

        Raises:
            ModelError: naming them.
        """
        now = {name: _stamp(path) for name, path in self._files().items()}
        names = {*now, *self.stamps}
        changed = sorted(name for name in names if now.get(name) != self.stamps.get(name))
        if changed:
            raise ModelError(
                f"Expected the files of {self.folder} to stay while the model is loaded, got "
                f"changes in {_listed(changed)} - start again once they are complete"
            )

    def _files(self) -> dict[str, Path]:
        return _files_of(self.folder, self.only)

    def check_in_place(self) -> None:
        """Refuses weights that were written to since, without being replaced.

        On a CPU weights may be mapped from their files, so that writing to a file changes the model
        in memory. A file that was removed or replaced stays mapped as it was.

        Raises:
            ModelError: naming them.
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
                f"to {_listed(changed)} - put changed weights into another folder, and start again"
            )


def digest_folder(
    folder: Path, note: Callable[[str], None] = quiet, only: str | None = None
) -> FolderDigest:
    """Digests the files of a model.

    Args:
        folder: with the files; links are followed, as the hub's cache is made of them.
        note: told where many bytes have to be read.
        only: the one file to digest; None for all that matter.

    Raises:
        ModelError: a file that cannot be read.
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
        # The name of a single file does not matter.
        told = name if only is None else ""
        whole.update(os.fsencode(f"{told}\0{stamps[name][0]}\0{digests[name]}\n"))
    kind = "folder" if only is None else "file"
    return FolderDigest(folder, f"{kind}-{whole.hexdigest()}", stamps, only)


def digest_code(files: Mapping[str, Path]) -> str:
    """The digest of small files by name: 16 hexadecimal digits."""
    whole = hashlib.blake2b(digest_size=8)
    for name in sorted(files):
        whole.update(os.fsencode(name) + b"\0" + hashlib.blake2b(files[name].read_bytes()).digest())
    return whole.hexdigest()


def model_files(folder: Path) -> dict[str, Path]:
    """The files of a checkpoint that matter, by name: weights, configuration, tokenizer, code."""
    found = {
        path.name: path
        for path in folder.iterdir()
        if path.suffix in SUFFIXES and path.name not in UNREAD and not path.is_dir()
    }
    below = list((folder / TEMPLATES).glob("*.jinja"))
    if any(path.suffix == ".py" for path in found.values()):
        # Code of a checkpoint may import from folders beside it.
        below += [
            path
            for path in folder.rglob("*.py")
            if not any(part.startswith(".") for part in path.relative_to(folder).parts)
        ]
    return found | {path.relative_to(folder).as_posix(): path for path in below}


def _files_of(folder: Path, only: str | None) -> dict[str, Path]:
    return model_files(folder) if only is None else {only: folder / only}


def _digests(
    folder: Path,
    files: Mapping[str, Path],
    stamps: Mapping[str, Stamp],
    note: Callable[[str], None],
) -> dict[str, str]:
    """The digest of each file: remembered, or made now and remembered."""
    known = _Remembered.read()
    digests = {name: known.get(files[name], stamp) for name, stamp in stamps.items()}
    found = {name: digest for name, digest in digests.items() if digest is not None}
    unknown = {name: (files[name], stamps[name][0]) for name in stamps if name not in found}
    size = sum(size for _, size in unknown.values())
    if size >= TOLD:
        note(f"Reading the {size / 1e9:.0f} GB of {folder} once, to tell this model from others")
    began = time.time()
    made = _digest_files(unknown)
    known.add({files[name]: (stamps[name], digest) for name, digest in made.items()}, began)
    return found | made


def _digest_files(files: Mapping[str, tuple[Path, int]]) -> dict[str, str]:
    """Hexadecimal digests of files with their sizes; parts of all of them are hashed at once."""
    with ThreadPoolExecutor(min(MOST_THREADS, available_cpus())) as pool:
        parts = {
            name: [pool.submit(_digest_part, path, at) for at in range(0, max(size, 1), PART)]
            for name, (path, size) in files.items()
        }
        return {
            name: hashlib.blake2b(b"".join(part.result() for part in some)).hexdigest()[:32]
            for name, some in parts.items()
        }


def _digest_part(path: Path, begin: int) -> bytes:
    """Of at most `PART` bytes; hashing releases the interpreter."""
    digest = hashlib.blake2b(digest_size=32)
    buffer = memoryview(bytearray(READ))
    with path.open("rb", buffering=0) as file:
        file.seek(begin)
        left = PART
        while left and (count := file.readinto(buffer[: min(READ, left)])):
            digest.update(buffer[:count])
            left -= count
    return digest.digest()


class _Remembered:
    """Digests of large files, in ``digests.json`` of the user's cache folder.

    Nothing here may end a run: a cache that cannot be read or written is one that is not there.
    """

    def __init__(self, path: Path | None, entries: dict[str, list[Any]]) -> None:
        self._path = path
        self._entries = entries

    @classmethod
    def read(cls) -> _Remembered:
        path = cache_file()
        return cls(path, _entries(path))

    def get(self, path: Path, stamp: Stamp) -> str | None:
        entry = self._entries.get(str(path.resolve()))
        if entry is None or entry[:-1] != list(stamp) or stamp[0] < REMEMBERED:
            return None
        return str(entry[-1])

    def add(self, digests: Mapping[Path, tuple[Stamp, str]], began: float) -> None:
        """Remembers files that did not change while they were read."""
        fresh = {
            str(path.resolve()): [*stamp, digest]
            for path, (stamp, digest) in digests.items()
            if stamp[0] >= REMEMBERED
            and max(stamp[1], stamp[2]) < (began - SETTLED) * 1e9
            and _stamp(path) == stamp
        }
        if not fresh or self._path is None:
            return
        # Read again: another process may have written meanwhile.
        kept = {path: entry for path, entry in _entries(self._path).items() if _stamp(Path(path))}
        text = json.dumps({"version": 1, "files": kept | fresh})
        with suppress(OSError):
            atomic_files.write(self._path, text.encode())


def cache_file() -> Path | None:
    """Where digests are remembered; None where the user has no home."""
    given = os.environ.get("LOCALAPPDATA" if sys.platform == "win32" else "XDG_CACHE_HOME", "")
    try:
        # The specification has relative paths ignored.
        base = Path(given) if Path(given).is_absolute() else Path.home() / ".cache"
    except RuntimeError:
        return None
    return base / "hallutrace" / "digests.json"


def _entries(path: Path | None) -> dict[str, list[Any]]:
    """What a cache file holds, as far as it is what was written."""
    try:
        content = json.loads(path.read_bytes()) if path is not None else {}
        files = content["files"] if content["version"] == 1 else {}
        return {
            str(name): entry
            for name, entry in files.items()
            if [type(part) for part in entry] == [int, int, int, int, str]
        }
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return {}


def _stamp(path: Path) -> Stamp | None:
    """None for a file that is not there, or a link to nothing."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return (stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino)


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more
