"""Processes as other processes see them: which one it is, and whether it still runs.

A process number means something only on its machine and in its pid namespace. Two containers may
share a host name, two machines may as well, and after a restart the same number is another process.
So a process is told by the machine's boot, by its namespaces, by its number and by its start. Where
one of them is not known or is another, nothing can be said from here, and that is what is said.
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
SAME_START = 2.0  # seconds by which two readings of a start may differ where /proc is missing


class State(enum.Enum):
    """What can be said of a process from here."""

    RUNNING = "running"
    GONE = "gone"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Process:
    """A process, as it tells others who it is.

    Attributes:
        host: name of the machine, for messages alone: several machines may share it.
        boot: id of the machine's boot; of the machine where its system has no such id; empty if
            not known.
        namespace: its pid namespace and its time namespace; empty if not known.
        pid: its number there.
        started: when it began: in ticks of the kernel, elsewhere in seconds; empty if not known.
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
        """Whether it runs, as far as that can be told from here."""
        place = (self.boot, self.namespace)
        if not all(place) or not self.started or place != (_boot(), _namespace()):
            return State.UNKNOWN
        if not _exists(self.pid):
            return State.GONE
        return _compared(_started(self.pid), self.started)


def _has_proc() -> bool:
    """Whether /proc is there and shows this process's own namespace."""
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
    """The machine by its network card; empty where it has none, as the number is random then."""
    node = uuid.getnode()
    return "" if node >> 40 & 1 else f"node-{node:012x}"


def _namespace() -> str:
    if not PROC.exists():
        return "none"  # a system without pid namespaces
    if not _has_proc():
        return ""
    try:
        # The start of a process is told in the reader's time namespace; older kernels have none.
        found = [(PROC / "self/ns/pid").stat().st_ino]
        if (PROC / "self/ns/time").exists():
            found.append((PROC / "self/ns/time").stat().st_ino)
    except OSError:
        return ""
    return "-".join(map(str, found))


def _exists(pid: int) -> bool:
    """Whether there is such a process, also where it may not be looked at; a dead child is gone."""
    import psutil

    if _has_proc():
        try:
            os.kill(pid, 0)  # hidden entries of /proc do not hide a process from this
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
    """When a process began; None if that cannot be seen."""
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
        # The name in parentheses may hold spaces and parentheses itself.
        return (PROC / f"{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def _compared(now: str | None, then: str) -> State:
    """A process with that number runs; whether it is the one that began then."""
    if now is None:
        return State.UNKNOWN
    if PROC.exists():
        return State.RUNNING if now == then else State.GONE
    # In seconds of a clock that may have been set since: another start proves nothing.
    is_same = abs(float(now) - float(then)) <= SAME_START
    return State.RUNNING if is_same else State.UNKNOWN
