"""Who works on which shard, where several processes share a run.

A claim is a file that only one process can make, whole from its first moment: it is written under
a name of its own and linked to its place. It says who made it, and its holder touches it while it
works. The claim of a dead process is never removed, because two heirs could each remove the
other's; instead the heir makes the next link of a chain, named after the dead claim, which again
only one can make:

    00042.claim                     made by a process that died
    00042.claim.5f3a…               its heir; the holder is whoever made the last link

How death is told: where the process can be seen (same boot of the same machine, same pid
namespace) by its number and its start; elsewhere by a claim that was not touched for ``SILENCE``
seconds, by the clock of the file system alone. Silence proves nothing of a process that was
suspended, so a holder checks before it writes for good that no heir has come, and one that was
silent itself for half that time makes the next link first, as an heir would. No locks are used: on
network file systems they may lie. What they must keep is that a name is linked once.
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
    "living",
    "wait_for_sign",
]

SILENCE = 300.0  # seconds without a touch after which a holder that cannot be seen is dead
TOUCH = 20.0  # seconds between two touches


class Claim:
    """A claim that this process holds; a context manager that keeps it alive.

    Args:
        path: of the link that this process made.
        chain: the first link.
        holder: what the link says.

    Attributes:
        done: whether the shard is committed. Only then may the chain be removed: whoever claims the
            shard anew finds its commit record. Otherwise the last link stays, released.
    """

    def __init__(self, path: Path, chain: Path, holder: Holder) -> None:
        self.done = False
        self._path = path
        self._chain = chain
        self._holder = holder
        self._is_lost = False
        self._lock = threading.Lock()
        self._over = threading.Event()
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
            self._over.set()
            self._thread.join()
            with suppress(OSError):
                self._end()
        finally:
            OWN_TOKENS.discard(self._holder.token)

    def check(self) -> None:
        """Makes sure that the shard is still this process's; to be called before every commit.

        Raises:
            SupersededError: another process took it over.
            StorageError: the file system refused, so that nobody can tell.
        """
        fix = "fix the file system, and run the same command again"
        with storage_errors(f"check the claim {self._path}", fix):
            self._keep()
        if self._is_lost:
            name = self._chain.name.removesuffix(".claim")
            heir = last_holder(self._chain.parent, name)
            found = "its claim removed: the shard was committed by another, or the run started over"
            if heir is not None:
                found = (
                    f"process {heir[1].pid} on {heir[1].host} at it: this one gave no sign for "
                    f"{SILENCE:.0f} s (it was suspended, or its disk did not answer)"
                )
            raise SupersededError(
                f"Expected to hold the shard {name} until it is committed, got {found} - nothing "
                "of another process was touched; run the same command again for what is left"
            )

    def _touch(self) -> None:
        while not self._over.wait(TOUCH):
            # A folder may be gone for a moment; the writer is the one to tell.
            with suppress(OSError):
                self._keep()

    def _keep(self) -> None:
        """Touches the claim, unless an heir has come, or may be about to."""
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
        """Whether the link is there, and no other follows it."""
        try:
            is_there = json.loads(self._path.read_bytes())["token"] == self._holder.token
            number = self._path.stat().st_ino
        except (FileNotFoundError, ValueError, TypeError, KeyError):
            return False
        followers = (after(self._chain, self._holder.token), after(self._chain, empty(number)))
        return is_there and not any(follower.exists() for follower in followers)

    def _renew(self) -> None:
        """Makes the next link, which an heir may want as well: one of the two gets it."""
        heir = replace(self._holder, token=secrets.token_hex(8))
        path = after(self._chain, self._holder.token)
        OWN_TOKENS.add(heir.token)
        if make(path, heir):
            OWN_TOKENS.discard(self._holder.token)
            self._path, self._holder = path, heir
        else:
            OWN_TOKENS.discard(heir.token)
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
        folder: where claims lie; it has to exist.
        name: of the shard.
        questions: how many questions it covers.

    Returns:
        The claim, or the living holder of another.

    Raises:
        StorageError: the file system refused.
    """
    me = Holder.me(questions)
    OWN_TOKENS.add(me.token)
    fix = "make the folder writable, or copy the run to where it is"
    try:
        with storage_errors(f"claim the shard {name} in {folder}", fix):
            found = _claim(folder / f"{name}.claim", me)
    except BaseException:
        OWN_TOKENS.discard(me.token)
        raise
    if isinstance(found, Holder):
        OWN_TOKENS.discard(me.token)
    return found


def _claim(chain: Path, me: Holder) -> Claim | Holder:
    path = chain
    while not make(path, me):
        holder = read(path)
        if holder is None:
            path = chain  # the chain was removed meanwhile: its shard is committed
        elif _is_dead(path, holder):
            path = after(chain, holder.token)
        else:
            return holder
    return Claim(path, chain, me)


def living(folder: Path, name: str) -> Holder | None:
    """Who holds a shard now, as far as that can be told; claims nothing."""
    found = last_holder(folder, name)
    return None if found is None or _is_dead(*found) else found[1]


def last_holder(folder: Path, name: str) -> tuple[Path, Holder] | None:
    """The last link of a shard's chain and who made it, alive or dead; None without a chain."""
    path = chain = folder / f"{name}.claim"
    found = None
    while (holder := read(path)) is not None:
        found = path, holder
        path = after(chain, holder.token)
    return found


def wait_for_sign(folder: Path, name: str) -> bool:
    """Waits until it is clear whether a shard's holder lives, at most for ``SILENCE`` seconds.

    A holder that can be seen needs no wait. Any other gives a sign (it touches its claim), or is
    silent for so long that it counts as dead.

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
        return True  # it was taken away: the shard is committed, or given up
    return living(folder, name) is None


def _is_dead(path: Path, holder: Holder) -> bool:
    state = holder.state()
    return silent_for(path) > SILENCE if state is State.UNKNOWN else state is State.GONE
