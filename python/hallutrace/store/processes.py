"""Identification of processes across machines and containers, and whether they still run.

A pid identifies a process only on its machine and in its pid namespace. Two containers or two
machines may share a host name, and after a restart the same pid belongs to another process. So a
process is identified by the boot of the machine, its namespaces, its pid and its start time. If
boot or namespace is not known, or differs from that of this process, the state is ``UNKNOWN``.
"""

from __future__ import annotations

import enum
import os
import socket
import uuid
from dataclasses import dataclass
from functools import cache
from pathlib import Path

PROC = Path("/proc")
SAME_START = 2.0  # tolerance of start times without /proc, seconds


class State(enum.Enum):
    """State of a process, as far as this process can see it."""

    RUNNING = "running"
    GONE = "gone"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Process:
    """Identity of a process.

    Attributes:
        host: name of the machine, only for messages, because several machines may share it.
        boot: id of the machine's boot; on systems without one, id of the machine; empty if not
            known.
        namespace: inode numbers of its pid namespace and its time namespace; empty if not known.
        pid: process id in that namespace.
        started: start time, in clock ticks since boot with /proc, else in seconds since 1970; empty
            if not known.
    """

    host: str
    boot: str
    namespace: str
    pid: int
    started: str

    @classmethod
    def me(cls) -> Process:
        """This process."""
        pid = os.getpid()
        return cls(socket.gethostname(), _boot(), _namespace(), pid, _started(pid) or "")

    def state(self) -> State:
        """Whether it runs; ``UNKNOWN`` if this process cannot see it."""
        visible = (_boot(), _namespace())
        if not all(visible) or not self.started or (self.boot, self.namespace) != visible:
            return State.UNKNOWN
        if not _exists(self.pid):
            return State.GONE
        return _compared(_started(self.pid), self.started)


def _has_proc() -> bool:
    """Whether /proc exists and belongs to the pid namespace of this process."""
    try:
        return int(str((PROC / "self").readlink())) == os.getpid()
    except (OSError, ValueError):
        return False


def _boot() -> str:
    try:
        return (PROC / "sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        pass
    return "" if PROC.exists() else _machine()


@cache
def _machine() -> str:
    """Id of the machine from its network card; empty without one, when the id is random."""
    node = uuid.getnode()
    return "" if node >> 40 & 1 else f"node-{node:012x}"


def _namespace() -> str:
    if not PROC.exists():
        return "none"  # a system without pid namespaces
    if not _has_proc():
        return ""
    try:
        # Start times depend on the time namespace of the reader; older kernels have none.
        inodes = [(PROC / "self/ns/pid").stat().st_ino]
        if (PROC / "self/ns/time").exists():
            inodes.append((PROC / "self/ns/time").stat().st_ino)
    except OSError:
        return ""
    return "-".join(map(str, inodes))


def _exists(pid: int) -> bool:
    """Whether a process exists, also one of another user; False for a zombie."""
    import psutil

    if _has_proc():
        try:
            os.kill(pid, 0)  # works also where /proc hides the process
        except ProcessLookupError:
            return False
        except (OSError, OverflowError):
            return True
        return _state_letter(pid) not in ("Z", "X")
    try:
        return bool(psutil.pid_exists(pid) and psutil.Process(pid).status() != "zombie")
    except psutil.NoSuchProcess:
        return False
    except psutil.Error:
        return True


def _started(pid: int) -> str | None:
    """Start time of a process; None if it cannot be read."""
    if PROC.exists():
        fields = _stat(pid)
        return fields[19] if len(fields) > 19 and _has_proc() else None
    import psutil

    try:
        return f"{psutil.Process(pid).create_time():.3f}"
    except psutil.Error:
        return None


def _state_letter(pid: int) -> str:
    return (_stat(pid) or [""])[0]


def _stat(pid: int) -> list[str]:
    try:
        # The name in parentheses may contain spaces and parentheses.
        return (PROC / f"{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def _compared(started: str | None, expected: str) -> State:
    """State of a process whose pid exists, by comparison of start times."""
    if started is None:
        return State.UNKNOWN
    if PROC.exists():
        return State.RUNNING if started == expected else State.GONE
    # The system clock may have been changed, so another start time proves nothing.
    is_same = abs(float(started) - float(expected)) <= SAME_START
    return State.RUNNING if is_same else State.UNKNOWN
