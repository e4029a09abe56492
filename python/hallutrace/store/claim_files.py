"""The files that claims are: whole from their first moment, made once, in a chain."""

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

UNKNOWN_COUNT = 0  # questions of a claim whose holder does not know how many its shard covers

# What a file system without hard links says.
_NO_LINKS = {errno.EPERM, errno.EACCES, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK}
if os.name == "nt":
    _NO_LINKS.add(errno.EINVAL)  # FAT and exFAT

# Tokens of the claims of this process, by which its threads tell each other apart.
OWN_TOKENS: set[str] = set()


@dataclass(frozen=True, slots=True)
class Holder:
    """Who made a claim, and on what.

    Attributes:
        token: of this claim alone.
        host: name of the machine, see :class:`hallutrace.store.processes.Process`.
        boot: likewise.
        pid: likewise.
        started: likewise.
        questions: how many questions the shard covers, which others skip; ``UNKNOWN_COUNT`` where
            its holder repairs the shard.
        released: its holder gave it up, and lives on.
        namespace: see :class:`hallutrace.store.processes.Process`.
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
        """This process."""
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
        """Whether it still holds its claim, as far as that can be told from here."""
        if self.released:
            return State.GONE
        state = Process(self.host, self.boot, self.namespace, self.pid, self.started).state()
        if state is State.RUNNING and self.pid == os.getpid():
            # A claim of this process that none of its threads holds was left by an interrupt.
            return State.RUNNING if self.token in OWN_TOKENS else State.GONE
        return state


def links(chain: Path) -> list[Path]:
    """All links of a chain of claims."""
    return [chain, *chain.parent.glob(f"{chain.name}.*")]


def left_behind(folder: Path) -> list[Path]:
    """Files of claims that never got to their places, and whose processes are gone."""
    paths = [*folder.glob(".claim-*"), *folder.glob(".released-*")]
    return [path for path in paths if (one := _parsed(path)) and _process_is_gone(one)]


def _process_is_gone(holder: Holder) -> bool:
    return replace(holder, released=False).state() is State.GONE


def after(chain: Path, token: str) -> Path:
    """The link that follows the one with that token."""
    return chain.with_name(f"{chain.name}.{token}")


def empty(number: int) -> str:
    """What stands for the token of a claim without content, by the number of its file."""
    return f"empty-{number}"


def content(holder: Holder) -> bytes:
    """What a claim says."""
    return json.dumps(asdict(holder)).encode()


def make(path: Path, holder: Holder) -> bool:
    """Makes a claim, whole at once; False where another has made it."""
    scratch = path.with_name(f".claim-{holder.token}")
    try:
        for _ in range(3):
            scratch.write_bytes(content(holder))
            try:
                os.link(scratch, path)
            except FileExistsError:
                pass
            except FileNotFoundError:
                continue  # whoever clears up after kills took it for one of theirs
            except OSError as error:
                if error.errno not in _NO_LINKS:
                    raise
                return _in_place(path, holder)
            # Network file systems may say either of what was done: the second name tells.
            return scratch.stat().st_nlink == 2
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
    finally:
        with suppress(OSError):
            scratch.unlink(missing_ok=True)


def _in_place(path: Path, holder: Holder) -> bool:
    """The same where the file system has no links; for a moment the claim is empty."""
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
        after(path, holder.token)  # a token that cannot be part of a name is none
        return holder if type(holder.pid) is int else None
    except (OSError, ValueError, TypeError):
        return None


def read(path: Path) -> Holder | None:
    """Who made a claim; None once it is gone."""
    for _ in range(50):
        holder = _parsed(path)
        if holder is not None:
            return holder
        try:
            number = path.stat().st_ino
        except FileNotFoundError:
            return None
        time.sleep(0.02)
    # Its maker is slow, or died between two steps: like one that cannot be seen.
    return Holder(empty(number), "an unknown machine", "", 0, "", UNKNOWN_COUNT)


def silent_for(path: Path) -> float:
    """Seconds since a file was touched, by the clock of its file system."""
    probe = path.with_name(f".clock-{secrets.token_hex(4)}")
    try:
        probe.touch()
        now = probe.stat().st_mtime
        probe.unlink()
        return now - path.stat().st_mtime
    except OSError:
        return 0.0
