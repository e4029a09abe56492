"""Claim files: created atomically by one process, each linked to the one before it by name."""

from __future__ import annotations

import errno
import json
import os
import secrets
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from hallutrace.store.processes import Process, State

UNKNOWN_COUNT = 0  # `Holder.questions` where the holder does not know how many its shard covers

# Errors of `os.link` on file systems without hard links.
_NO_LINKS = {errno.EPERM, errno.EACCES, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK}
if os.name == "nt":
    _NO_LINKS.add(errno.EINVAL)  # FAT and exFAT

# Tokens of the claims that threads of this process hold now.
OWN_TOKENS: set[str] = set()


@dataclass(frozen=True, slots=True)
class Holder:
    """The process that holds a claim, and the size of its shard.

    Attributes:
        token: random hexadecimal digits, different for each claim.
        host: name of the machine, see :class:`hallutrace.store.processes.Process`.
        boot: id of the machine's boot, likewise.
        pid: process id, likewise.
        started: start time of the process, likewise.
        questions: number of questions in the shard, which other processes skip; ``UNKNOWN_COUNT``
            where the holder repairs, merges or copies the shard.
        released: whether the holder gave up the claim; its process may still run.
        namespace: pid and time namespace, likewise.
    """

    token: str
    host: str
    boot: str
    pid: int
    started: str
    questions: int
    released: bool = False
    namespace: str = ""

    @classmethod
    def me(cls, questions: int) -> Holder:
        """A holder with a new token for this process."""
        me = Process.me()
        return cls(
            token=secrets.token_hex(8),
            host=me.host,
            boot=me.boot,
            pid=me.pid,
            started=me.started,
            questions=questions,
            namespace=me.namespace,
        )

    def state(self) -> State:
        """Whether the holder still works on its shard; ``UNKNOWN`` if that cannot be seen."""
        if self.released:
            return State.GONE
        state = Process(self.host, self.boot, self.namespace, self.pid, self.started).state()
        if state is State.RUNNING and self.pid == os.getpid():
            # An interrupt left a claim of this process that none of its threads holds.
            return State.RUNNING if self.token in OWN_TOKENS else State.GONE
        return state


def links(chain: Path) -> list[Path]:
    """The claim files of a chain.

    Args:
        chain: the first file of the chain, which need not exist.
    """
    return [chain, *chain.parent.glob(f"{chain.name}.*")]


def left_behind(folder: Path) -> list[Path]:
    """Temporary claim files of processes that ended before they could rename or delete them."""
    paths = [*folder.glob(".claim-*"), *folder.glob(".released-*")]
    return [path for path in paths if (holder := _parsed(path)) and _process_is_gone(holder)]


def _process_is_gone(holder: Holder) -> bool:
    return replace(holder, released=False).state() is State.GONE


def after(chain: Path, token: str) -> Path:
    """Path of the claim that succeeds the claim with this token."""
    return chain.with_name(f"{chain.name}.{token}")


def empty(inode: int) -> str:
    """Token of a claim file without content, from the inode number of the file."""
    return f"empty-{inode}"


def content(holder: Holder) -> bytes:
    """Content of a claim file, as JSON."""
    return json.dumps(asdict(holder)).encode()


def make(path: Path, holder: Holder) -> bool:
    """Creates a claim file atomically, with its content.

    Args:
        path: of the claim file.
        holder: its content.

    Returns:
        Whether this call created the file; False if it existed.

    Raises:
        OSError: the file system refused.
    """
    scratch = path.with_name(f".claim-{holder.token}")
    try:
        for _ in range(3):
            scratch.write_bytes(content(holder))
            try:
                os.link(scratch, path)
            except FileExistsError:
                pass
            except FileNotFoundError:
                continue  # another process deleted it as a leftover of a killed process
            except OSError as error:
                if error.errno not in _NO_LINKS:
                    raise
                return _make_without_links(path, holder)
            # Network file systems may report failure of a link that they made, so count the links.
            return scratch.stat().st_nlink == 2
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
    finally:
        with suppress(OSError):
            scratch.unlink(missing_ok=True)


def _make_without_links(path: Path, holder: Holder) -> bool:
    """As :func:`make` without hard links: other processes may see the file while it is empty."""
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
    except FileExistsError:
        return False
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content(holder))
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    return True


def _parsed(path: Path) -> Holder | None:
    try:
        holder = Holder(**json.loads(path.read_bytes()))
        after(path, holder.token)  # raises ValueError if the token cannot be part of a name
        return holder if type(holder.pid) is int else None
    except (OSError, ValueError, TypeError):
        return None


def read(path: Path) -> Holder | None:
    """The holder that a claim file names; None if the file does not exist."""
    for _ in range(50):
        holder = _parsed(path)
        if holder is not None:
            return holder
        try:
            inode = path.stat().st_ino
        except FileNotFoundError:
            return None
        time.sleep(0.02)
    # The process that created the file is slow, or died before it wrote the content. Whether it
    # runs is unknown.
    return Holder(empty(inode), "an unknown machine", "", 0, "", UNKNOWN_COUNT)


def silent_for(path: Path) -> float:
    """Seconds since a file was modified, by the clock of its file system; 0 if unknown."""
    probe = path.with_name(f".clock-{secrets.token_hex(4)}")
    try:
        probe.touch()
        now = probe.stat().st_mtime
        probe.unlink()
        return now - path.stat().st_mtime
    except OSError:
        return 0.0
