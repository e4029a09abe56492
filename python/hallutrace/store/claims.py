"""Claims: which process works on which shard, where several processes share a run.

A claim is a file that names the process that created it, its holder. Only one process can create
it, because it is written under a temporary name and then hard-linked to its final name. The holder
updates the file's modification time while it works.

The claim of a dead process is never deleted: of two processes that take over the shard, the second
could delete the new claim of the first. Instead, the successor creates the next file of a chain,
whose name contains the token of the dead claim. Again only one process can create it:

    00042.claim                     created by a process that died
    00042.claim.5f3a…               its successor; the last file of the chain names the holder

A holder counts as dead if its process ended. Where that cannot be seen (on another machine, after
another boot, in another pid namespace), it counts as dead if the claim was not touched for
``SILENCE`` seconds by the clock of the file system. Such a process may only have been suspended.
Therefore a holder checks before each commit that it has no successor, and if it has not touched its
claim for half that time, it first creates the next file of the chain itself.

No locks are used, because locks of network file systems are unreliable. The file system only has to
guarantee that one process alone can create a name.
"""

from __future__ import annotations

import json
import os
import secrets
import threading
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import TracebackType

from hallutrace import atomic_files
from hallutrace.atomic_files import storage_errors
from hallutrace.errors import SupersededError
from hallutrace.store.claim_files import (
    OWN_TOKENS,
    UNKNOWN_COUNT,
    Holder,
    after,
    content,
    empty,
    left_behind,
    links,
    make,
    read,
    silent_for,
)
from hallutrace.store.processes import State

__all__ = [
    "SILENCE",
    "TOUCH",
    "UNKNOWN_COUNT",
    "Claim",
    "Holder",
    "claim",
    "last_holder",
    "left_behind",
    "links",
    "running_holder",
    "wait_until_claimable",
]

SILENCE = 300.0  # seconds without a touch after which a holder of unknown state counts as dead
TOUCH = 20.0  # seconds between two touches


class Claim:
    """A claim that this process holds; a context manager that touches it while it is open.

    Args:
        path: the claim file that this process created.
        chain: the first claim file of the shard.
        holder: content of the claim file.

    Attributes:
        done: whether the shard is committed. Only then is the chain deleted on exit, because a
            process that claims the shard again finds its commit record. Otherwise the last claim
            file stays and is marked as released.
    """

    def __init__(self, path: Path, chain: Path, holder: Holder) -> None:
        self.done = False
        self._path = path
        self._chain = chain
        self._holder = holder
        self._is_lost = False
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._touch, daemon=True)

    def __enter__(self) -> Claim:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self._stopped.set()
            self._thread.join()
            with suppress(OSError):
                self._end()
        finally:
            OWN_TOKENS.discard(self._holder.token)

    def check(self) -> None:
        """Checks that this process still holds the shard; call it before every commit.

        Raises:
            SupersededError: another process took over the shard.
            StorageError: the file system refused, so the holder is unknown.
        """
        fix = "fix the file system, and run the same command again"
        with storage_errors(f"check the claim {self._path}", fix):
            self._keep()
        if self._is_lost:
            name = self._chain.name.removesuffix(".claim")
            successor = last_holder(self._chain.parent, name)
            found = "its claim removed: the shard was committed by another, or the run started over"
            if successor is not None:
                found = (
                    f"process {successor[1].pid} on {successor[1].host} at it: this one gave no "
                    f"sign for {SILENCE:.0f} s (it was suspended, or its disk did not answer)"
                )
            raise SupersededError(
                f"Expected to hold the shard {name} until it is committed, got {found} - nothing "
                "of another process was touched; run the same command again for what is left"
            )

    def _touch(self) -> None:
        while not self._stopped.wait(TOUCH):
            # The folder may be unavailable for a moment; `check` reports errors that last.
            with suppress(OSError):
                self._keep()

    def _keep(self) -> None:
        """Touches the claim, or renews it if a successor may be about to create the next one."""
        with self._lock:
            if self._is_lost:
                return
            if not self._is_last():
                self._is_lost = True
            elif silent_for(self._path) > SILENCE / 2:
                self._renew()
            else:
                os.utime(self._path)

    def _is_last(self) -> bool:
        """Whether the claim file exists and has no successor."""
        try:
            is_ours = json.loads(self._path.read_bytes())["token"] == self._holder.token
            inode = self._path.stat().st_ino
        except (FileNotFoundError, ValueError, TypeError, KeyError):
            return False
        successors = (after(self._chain, self._holder.token), after(self._chain, empty(inode)))
        return is_ours and not any(successor.exists() for successor in successors)

    def _renew(self) -> None:
        """Creates the next claim of the chain; the claim is lost if another process was first."""
        renewed = replace(self._holder, token=secrets.token_hex(8))
        path = after(self._chain, self._holder.token)
        OWN_TOKENS.add(renewed.token)
        if make(path, renewed):
            OWN_TOKENS.discard(self._holder.token)
            self._path, self._holder = path, renewed
        else:
            OWN_TOKENS.discard(renewed.token)
            self._is_lost = True

    def _end(self) -> None:
        if self.done:
            for link in links(self._chain):
                atomic_files.remove(link)
        elif not self._is_lost and self._is_last():
            scratch = self._path.with_name(f".released-{self._holder.token}")
            scratch.write_bytes(content(replace(self._holder, released=True)))
            atomic_files.replace(scratch, self._path)


def claim(folder: Path, name: str, questions: int) -> Claim | Holder:
    """Claims a shard.

    Args:
        folder: folder of the claim files; it has to exist.
        name: of the shard.
        questions: number of questions in the shard.

    Returns:
        The claim, or its holder if another process or thread has claimed the shard.

    Raises:
        StorageError: the file system refused.

    Examples:
        >>> with claim(folder, "00000", questions=5):
        ...     claim(folder, "00000", questions=5).questions
        5
    """
    own = Holder.me(questions)
    OWN_TOKENS.add(own.token)
    fix = "make the folder writable, or copy the run to where it is"
    try:
        with storage_errors(f"claim the shard {name} in {folder}", fix):
            found = _claim(folder / f"{name}.claim", own)
    except BaseException:
        OWN_TOKENS.discard(own.token)
        raise
    if isinstance(found, Holder):
        OWN_TOKENS.discard(own.token)
    return found


def _claim(chain: Path, own: Holder) -> Claim | Holder:
    path = chain
    while not make(path, own):
        holder = read(path)
        if holder is None:
            path = chain  # another process committed the shard and deleted the chain
        elif _is_dead(path, holder):
            path = after(chain, holder.token)
        else:
            return holder
    return Claim(path, chain, own)


def running_holder(folder: Path, name: str) -> Holder | None:
    """The holder of a shard, without claiming it; None if it has none or its holder is dead."""
    found = last_holder(folder, name)
    return None if found is None or _is_dead(*found) else found[1]


def last_holder(folder: Path, name: str) -> tuple[Path, Holder] | None:
    """Last claim file of a shard and its holder, dead or not; None if there is no claim."""
    path = chain = folder / f"{name}.claim"
    found = None
    while (holder := read(path)) is not None:
        found = path, holder
        path = after(chain, holder.token)
    return found


def wait_until_claimable(folder: Path, name: str) -> bool:
    """Waits until it is known whether the holder of a shard is dead.

    Returns at once if the state of the holder's process is known. Otherwise waits until the claim
    is touched, or until it was not touched for ``SILENCE`` seconds.

    Args:
        folder: folder of the claim files.
        name: of the shard.

    Returns:
        Whether the shard can be claimed now.
    """
    found = last_holder(folder, name)
    if found is None or found[1].state() is State.GONE:
        return True
    path, holder = found
    end = time.monotonic() + SILENCE + TOUCH
    try:
        touched = path.stat().st_mtime_ns
        while holder.state() is State.UNKNOWN and time.monotonic() < end:
            if silent_for(path) > SILENCE:
                return True
            time.sleep(min(0.5, TOUCH / 4))
            if path.stat().st_mtime_ns != touched:
                break
    except OSError:
        return True  # the claim was deleted: the shard is committed or released
    return running_holder(folder, name) is None


def _is_dead(path: Path, holder: Holder) -> bool:
    state = holder.state()
    return silent_for(path) > SILENCE if state is State.UNKNOWN else state is State.GONE
