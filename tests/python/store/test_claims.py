"""One process wins each shard; a dead one has one heir."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from hallutrace.errors import StorageError, SupersededError
from hallutrace.store import claim_files, claims, processes
from hallutrace.store.claims import (
    Claim,
    Holder,
    claim,
    last_holder,
    links,
    running_holder,
    wait_until_claimable,
)
from hallutrace.store.processes import State


def write(path: Path, holder: Holder) -> None:
    path.write_text(json.dumps(asdict(holder)))


def dead_process() -> int:
    """The number of a process that was."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_a_claim_is_made_once(tmp_path: Path) -> None:
    mine = claim(tmp_path, "00000", 5)
    assert isinstance(mine, Claim)
    with mine:
        other = claim(tmp_path, "00000", 5)
        assert isinstance(other, Holder)
        assert (other.pid, other.questions) == (os.getpid(), 5)
        mine.done = True
    assert not list(tmp_path.iterdir())


def test_a_claim_given_up_can_be_made_again(tmp_path: Path) -> None:
    for _ in range(3):
        mine = claim(tmp_path, "00000", 5)
        assert isinstance(mine, Claim)
        with mine:
            pass
    assert len(links(tmp_path / "00000.claim")) == 3
    last = claim(tmp_path, "00000", 5)
    assert isinstance(last, Claim)
    with last:
        last.done = True
    assert not list(tmp_path.iterdir())


def test_the_dead_are_told_by_their_process(tmp_path: Path) -> None:
    mine = claim(tmp_path, "00000", 5)
    assert isinstance(mine, Claim)
    with mine:
        (_, alive) = last_holder(tmp_path, "00000") or (None, None)
        assert alive is not None
        assert alive.state() is State.RUNNING
        assert replace(alive, pid=dead_process()).state() is State.GONE
        assert replace(alive, started="1").state() is State.GONE
        assert replace(alive, released=True).state() is State.GONE
    # What no thread of this process holds any more was left by an interrupt.
    assert alive.state() is State.GONE


@pytest.mark.parametrize(
    "other",
    [
        {"boot": "another"},
        {"boot": ""},
        {"namespace": "4026531999-4026531834"},
        {"namespace": ""},
        {"started": ""},
    ],
    ids=str,
)
def test_nothing_is_said_of_processes_elsewhere(tmp_path: Path, other: dict[str, str]) -> None:
    """The same host name, as of two containers; the same number, as of two first processes."""
    far = replace(Holder.me(5), **other)
    assert far.state() is State.UNKNOWN
    assert replace(far, pid=dead_process()).state() is State.UNKNOWN
    path = tmp_path / "00000.claim"
    write(path, far)
    assert isinstance(claim(tmp_path, "00000", 5), Holder)
    os.utime(path, (0, time.time() - claims.SILENCE - 5))
    assert isinstance(claim(tmp_path, "00000", 5), Claim)
    assert isinstance(claim(tmp_path, "00000", 5), Holder)


def test_a_living_claim_is_touched(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(claims, "TOUCH", 0.01)
    mine = claim(tmp_path, "00000", 5)
    path = tmp_path / "00000.claim"
    past = time.time() - 60
    os.utime(path, (0, past))
    with mine:
        for _ in range(500):
            if path.stat().st_mtime > past + 30:
                break
            time.sleep(0.01)
    assert path.stat().st_mtime > past + 30


def test_a_claim_without_content_is_of_the_dead_once_it_is_silent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claim_files.time, "sleep", lambda _: None)
    path = tmp_path / "00000.claim"
    path.touch()
    os.utime(path, (0, time.time() - 60))  # a maker that was suspended between two steps
    assert isinstance(claim(tmp_path, "00000", 5), Holder)
    os.utime(path, (0, time.time() - claims.SILENCE - 5))
    assert isinstance(claim(tmp_path, "00000", 5), Claim)
    assert isinstance(claim(tmp_path, "00000", 5), Holder)


def test_a_claim_is_never_without_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    link, seen = os.link, []

    def linked(scratch: Path, path: Path) -> None:
        link(scratch, path)
        seen.append(json.loads(path.read_text())["pid"])

    monkeypatch.setattr(os, "link", linked)
    assert isinstance(claim(tmp_path, "00000", 5), Claim)
    assert seen == [os.getpid()]
    assert [path.name for path in tmp_path.iterdir()] == ["00000.claim"]


def test_where_there_are_no_links_a_claim_is_made_in_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refused)
    mine = claim(tmp_path, "00000", 5)
    assert isinstance(mine, Claim)
    assert isinstance(claim(tmp_path, "00000", 5), Holder)
    with mine:
        mine.done = True
    assert not list(tmp_path.iterdir())


def test_a_link_that_was_made_but_told_as_existing_is_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a network file system says whose answer was lost and asked for again."""
    link = os.link

    def told_twice(scratch: Path, path: Path) -> None:
        link(scratch, path)
        raise FileExistsError(errno.EEXIST, "File exists")

    monkeypatch.setattr(os, "link", told_twice)
    assert isinstance(claim(tmp_path, "00000", 5), Claim)


@pytest.mark.parametrize("error", [errno.EROFS, errno.ENOSPC, errno.EIO])
def test_a_file_system_that_refuses_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    def refused(*_: object) -> None:
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(os, "link", refused)
    with pytest.raises(StorageError) as raised:
        claim(tmp_path, "00000", 5)
    assert str(raised.value) == (
        f"Expected to claim the shard 00000 in {tmp_path}, got: {os.strerror(error)} - make the "
        "folder writable, or copy the run to where it is"
    )
    assert not list(tmp_path.iterdir())


def test_without_a_process_file_system_the_start_of_a_process_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on macOS and Windows, where no signal may be sent to find out."""
    monkeypatch.setattr(processes, "PROC", tmp_path / "none")
    monkeypatch.setattr(processes, "_machine", lambda: "node-02ab")
    monkeypatch.setattr(processes, "os", SimpleNamespace(getpid=os.getpid))
    me = processes.Process.me()
    assert me.state() is State.RUNNING
    assert float(me.started) > 1e9
    assert replace(me, pid=dead_process()).state() is State.GONE
    assert replace(me, started="1000.000").state() is State.UNKNOWN  # reused, or the clock was set
    assert replace(me, boot="node-other").state() is State.UNKNOWN
    monkeypatch.setattr(processes, "_machine", lambda: "")
    assert processes.Process.me().state() is State.UNKNOWN


def test_a_process_that_may_not_be_looked_at_is_not_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    """As of another user, where /proc hides them."""
    me = processes.Process.me()
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        other = replace(me, pid=child.pid)
        monkeypatch.setattr(processes, "_stat", lambda pid: [])
        assert other.state() is State.UNKNOWN
    finally:
        child.communicate(b"\n")
    assert other.state() is State.GONE


def test_another_process_file_system_is_not_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pid namespace without a mount of its own sees the numbers of another."""
    me = processes.Process.me()
    (tmp_path / "self").symlink_to("1")
    monkeypatch.setattr(processes, "PROC", tmp_path)
    assert processes.Process.me().namespace == ""
    assert me.state() is State.UNKNOWN


def test_of_many_heirs_one_wins(tmp_path: Path) -> None:
    for round_ in range(20):
        name = f"{round_:05d}"
        write(tmp_path / f"{name}.claim", replace(Holder.me(5), pid=dead_process()))
        barrier = threading.Barrier(8)
        won: list[Claim] = []

        def race(name: str = name, barrier: threading.Barrier = barrier) -> None:
            barrier.wait()
            mine = claim(tmp_path, name, 5)
            if isinstance(mine, Claim):
                won.append(mine)  # noqa: B023 - joined before the next round

        threads = [threading.Thread(target=race) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(won) == 1


def test_who_holds_a_shard_is_told_without_claiming_it(tmp_path: Path) -> None:
    assert running_holder(tmp_path, "00000") is None
    assert last_holder(tmp_path, "00000") is None
    dead = replace(Holder.me(5), pid=dead_process())
    write(tmp_path / "00000.claim", dead)
    assert running_holder(tmp_path, "00000") is None
    mine = claim(tmp_path, "00000", 5)
    assert isinstance(mine, Claim)
    with mine:
        before = sorted(tmp_path.iterdir())
        found = running_holder(tmp_path, "00000")
        assert found is not None
        assert found.pid == os.getpid()
        assert last_holder(tmp_path, "00000") == (tmp_path / f"00000.claim.{dead.token}", found)
        assert sorted(tmp_path.iterdir()) == before
    assert running_holder(tmp_path, "00000") is None
    last = last_holder(tmp_path, "00000")
    assert last is not None
    assert last[1].released


def test_a_claim_far_away_is_living_until_it_is_silent(tmp_path: Path) -> None:
    path = tmp_path / "00000.claim"
    write(path, replace(Holder.me(5), host="elsewhere", boot="another", pid=1))
    assert running_holder(tmp_path, "00000") is not None
    os.utime(path, (0, time.time() - claims.SILENCE - 5))
    assert running_holder(tmp_path, "00000") is None


# Heirs ------------------------------------------------------------------------------------------


def test_a_holder_whose_claim_was_inherited_notices(tmp_path: Path) -> None:
    mine = claim(tmp_path, "00000", 5)
    assert isinstance(mine, Claim)
    with mine:
        mine.check()
        (path, me) = last_holder(tmp_path, "00000") or (tmp_path, Holder.me(0))
        heir = replace(me, token="heir", boot="another", pid=77, host="elsewhere")
        write(path.with_name(f"{path.name}.{me.token}"), heir)
        before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
        for _ in range(2):
            with pytest.raises(SupersededError) as raised:
                mine.check()
        assert str(raised.value) == (
            "Expected to hold the shard 00000 until it is committed, got process 77 on elsewhere "
            "at it: this one gave no sign for 300 s (it was suspended, or its disk did not answer) "
            "- nothing of another process was touched; run the same command again for what is left"
        )
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_holder_whose_claim_was_removed_notices(tmp_path: Path) -> None:
    mine = claim(tmp_path, "00000", 5)
    assert isinstance(mine, Claim)
    with mine:
        (tmp_path / "00000.claim").unlink()  # as by an heir that has committed the shard
        with pytest.raises(SupersededError, match="got its claim removed: the shard was committed"):
            mine.check()
    assert not list(tmp_path.iterdir())


def test_a_holder_that_was_silent_goes_on_by_the_next_link(tmp_path: Path) -> None:
    mine = claim(tmp_path, "00000", 5)
    assert isinstance(mine, Claim)
    path = tmp_path / "00000.claim"
    with mine:
        os.utime(path, (0, time.time() - claims.SILENCE))
        mine.check()
        assert len(links(path)) == 2
        # An heir that found it silent comes too late for the link that it wants.
        assert isinstance(claim(tmp_path, "00000", 5), Holder)
        mine.check()
        mine.done = True
    assert not list(tmp_path.iterdir())


def test_of_a_holder_that_wakes_and_its_heir_one_wins(tmp_path: Path) -> None:
    for round_ in range(20):
        name = f"{round_:05d}"
        mine = claim(tmp_path, name, 5)
        assert isinstance(mine, Claim)
        path, me = last_holder(tmp_path, name) or (tmp_path, Holder.me(0))
        # Seen from elsewhere: the holder cannot be seen, and is silent.
        os.utime(path, (0, time.time() - claims.SILENCE - 5))
        barrier = threading.Barrier(2)
        heirs: list[bool] = []

        def inherit(path: Path = path, me: Holder = me, barrier=barrier, heirs=heirs) -> None:
            barrier.wait()
            heirs.append(claim_files.make(claim_files.after(path, me.token), Holder.me(5)))

        thread = threading.Thread(target=inherit)
        thread.start()
        barrier.wait()
        try:
            mine.check()
            kept = True
        except SupersededError:
            kept = False
        thread.join()
        assert heirs == [not kept]


def test_who_cannot_be_seen_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "TOUCH", 0.04)
    monkeypatch.setattr(claims, "SILENCE", 1.0)
    assert wait_until_claimable(tmp_path, "00000")
    path = tmp_path / "00000.claim"
    write(path, replace(Holder.me(5), boot="another"))
    os.utime(path, (0, time.time() - 0.8))
    assert wait_until_claimable(tmp_path, "00000")  # by then it has been silent for too long
    os.utime(path)
    toucher = threading.Timer(0.1, os.utime, [path])
    toucher.start()
    assert not wait_until_claimable(tmp_path, "00000")
    toucher.join()


# Pid namespaces ---------------------------------------------------------------------------------

# Claims every shard in turn, and notes when it began to hold it and when it let it go.
CONTENDER = """
import os, sys, time
from pathlib import Path
from hallutrace.store.claims import Claim, claim
folder, rounds, me = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
held = 0
for at in range(rounds):
    (folder / f"ready-{at}-{me}").touch()
    while len(list(folder.glob(f"ready-{at}-*"))) < 3:
        time.sleep(0.001)
    mine = claim(folder / "partial", f"{at:05d}", 1)
    (folder / f"{'held' if isinstance(mine, Claim) else 'other'}-{at}-{me}").touch()
    # Nobody gives up before all have asked.
    while len(list(folder.glob(f"*-{at}-*"))) < 6:
        time.sleep(0.001)
"""
ROUNDS = int(os.environ.get("HALLUTRACE_CLAIM_ROUNDS", "20"))  # the long series is 200


def can_unshare() -> bool:
    words = [*UNSHARE, "true"]
    return (
        bool(shutil.which("unshare")) and not subprocess.run(words, capture_output=True).returncode
    )


UNSHARE = ["unshare", "--pid", "--fork", "--mount-proc"]


@pytest.mark.skipif(not can_unshare(), reason="unshare --pid is not permitted here")
def test_of_three_processes_in_namespaces_of_their_own_one_holds(tmp_path: Path) -> None:
    """Containers on one machine with one host name: each is process 1, or near, to itself."""
    (tmp_path / "partial").mkdir()
    words = [*UNSHARE, sys.executable, "-c", CONTENDER, str(tmp_path), str(ROUNDS)]
    path = os.pathsep.join(map(str, sys.path))
    contenders = [
        subprocess.Popen([*words, str(at)], env={**os.environ, "PYTHONPATH": path})
        for at in range(3)
    ]
    assert [contender.wait() for contender in contenders] == [0, 0, 0]
    holders = [len(list(tmp_path.glob(f"held-{at}-*"))) for at in range(ROUNDS)]
    assert holders == [1] * ROUNDS
    namespaces = {json.loads(path.read_text())["namespace"] for path in tmp_path.glob("partial/*")}
    pids = {json.loads(path.read_text())["pid"] for path in tmp_path.glob("partial/*")}
    print(f"{ROUNDS} rounds, one holder in each; namespaces {namespaces}, numbers {pids}")
