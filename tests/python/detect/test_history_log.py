"""The log of a training: what is followed is what was trained, whatever was killed on the way."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hallutrace.detect.nets import history
from hallutrace.detect.nets.history import Epoch
from hallutrace.detect.nets.history_log import (
    ALL,
    LOG,
    News,
    append_to_log,
    begin_log,
    read_since,
)
from hallutrace.errors import DamagedError
from toy_training import fitted


def epoch(number: int, loss: float = 0.5) -> Epoch:
    return Epoch(number, loss, 0.7, 0.7, 1e-3, 0.1, 64, 0.01)


class Follower:
    """Puts news together, as a page does."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.cursor = folder, None
        self.epochs: list[Epoch] = []
        self.notes: list[str] = []

    def look(self) -> News:
        news, self.cursor = read_since(self.folder, self.cursor)
        self.epochs = [*self.epochs[: news.kept], *news.epochs]
        self.notes = [*(self.notes if news.notes_kept else []), *news.notes]
        return news


def test_a_real_training_can_be_followed(tmp_path: Path) -> None:
    _, epochs = fitted(tmp_path)
    follower = Follower(tmp_path)
    follower.look()
    assert follower.epochs == epochs
    whole = json.loads((tmp_path / "history.json").read_bytes())
    assert [asdict(one) for one in follower.epochs] == whole["epochs"]
    assert follower.notes == whole["notes"]
    assert follower.look() == News(ALL, (), True, ())
    fitted(tmp_path)  # it had ended: nothing is trained
    follower.look()
    assert follower.epochs == epochs


def test_only_what_is_new_is_read(tmp_path: Path) -> None:
    begin_log(tmp_path, [], [])
    follower = Follower(tmp_path)
    for number in range(1, 4):
        append_to_log(tmp_path, asdict(epoch(number)))
        append_to_log(tmp_path, {"note": f"after {number}"})
        news = follower.look()
        assert [one.epoch for one in news.epochs] == [number] and news.kept == number - 1
        assert news.notes == (f"after {number}",)
    assert follower.notes == ["after 1", "after 2", "after 3"]


def test_epochs_after_the_last_checkpoint_are_told_again(tmp_path: Path) -> None:
    begin_log(tmp_path, [], [])
    follower = Follower(tmp_path)
    append_to_log(tmp_path, asdict(epoch(1)))
    append_to_log(tmp_path, {"note": "lost"})
    append_to_log(tmp_path, asdict(epoch(2)))
    follower.look()
    begin_log(tmp_path, [epoch(1)], [])  # killed before the checkpoint of epoch 2
    append_to_log(tmp_path, asdict(epoch(2, loss=0.4)))
    news = follower.look()
    assert (news.kept, news.notes_kept) == (1, False)
    late = Follower(tmp_path)
    late.look()
    assert follower.epochs == late.epochs == [epoch(1), epoch(2, loss=0.4)]
    assert follower.notes == late.notes == []


def test_a_training_that_had_no_log_gets_one(tmp_path: Path) -> None:
    begin_log(tmp_path, [epoch(1), epoch(2)], ["note"])
    follower = Follower(tmp_path)
    follower.look()
    assert follower.epochs == [epoch(1), epoch(2)] and follower.notes == ["note"]


@given(cut=st.integers(0, 2000), torn=st.integers(0, 400))
def test_a_kill_at_any_byte_loses_no_whole_line(
    tmp_path_factory: pytest.TempPathFactory, cut: int, torn: int
) -> None:
    folder = tmp_path_factory.mktemp("log")
    begin_log(folder, [], [])
    for number in range(1, 6):
        append_to_log(folder, asdict(epoch(number)))
    whole = (folder / LOG).read_bytes()
    (folder / LOG).write_bytes(whole[: min(cut, len(whole))])
    follower = Follower(folder)
    follower.look()
    standing = follower.epochs
    assert standing == [epoch(number) for number in range(1, len(standing) + 1)]
    begin_log(folder, standing, ["goes on"])
    (folder / LOG).write_bytes((folder / LOG).read_bytes() + b'{"epoch": 9, "loss'[:torn])
    append_to_log(folder, asdict(epoch(len(standing) + 1)))
    follower.look()
    assert follower.epochs == [epoch(number) for number in range(1, len(standing) + 2)]
    assert follower.notes == ["goes on"]


def test_another_training_in_the_same_folder_is_told_from_the_start(tmp_path: Path) -> None:
    begin_log(tmp_path, [epoch(1), epoch(2)], [])
    follower = Follower(tmp_path)
    follower.look()
    (tmp_path / LOG).unlink()
    begin_log(tmp_path, [epoch(1, loss=0.1), epoch(2), epoch(3)], [])
    follower.look()
    assert follower.epochs == [epoch(1, loss=0.1), epoch(2), epoch(3)]


@pytest.mark.parametrize("cursor", ["", "none", "x:1", "1:-5", "1:99999999999999999999", "0:٣"])
def test_any_other_cursor_reads_from_the_start(tmp_path: Path, cursor: str) -> None:
    begin_log(tmp_path, [epoch(1)], [])
    news, _ = read_since(tmp_path, cursor)
    assert news == News(0, (epoch(1),), False, ())


def test_a_history_without_a_log_is_read_whole(tmp_path: Path) -> None:
    assert read_since(tmp_path) == (News(0, (), False, ()), "none")
    history.write(tmp_path, [epoch(1), epoch(2)], ["a note"])
    news, cursor = read_since(tmp_path)
    assert news == News(0, (epoch(1), epoch(2)), False, ("a note",))
    assert read_since(tmp_path, cursor)[0] == News(ALL, (), True, ())
    (tmp_path / "history.json").write_text('{"epochs": [{}], "notes": []}')
    with pytest.raises(DamagedError, match=r"history\.json - restore it from a copy"):
        read_since(tmp_path)


def test_lines_of_anything_else_are_left_out(tmp_path: Path) -> None:
    begin_log(tmp_path, [epoch(1)], [])
    with (tmp_path / LOG).open("ab") as file:
        file.write(b'{"epoch": 2}\n[1]\n\xff\n{"resumed": 0}\n{"note": 5}\n')
    follower = Follower(tmp_path)
    follower.look()
    assert follower.epochs == [epoch(1)] and follower.notes == []
