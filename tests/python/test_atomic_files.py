"""Files are written whole or not at all, and what cannot be written leaves nothing behind."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from hallutrace import atomic_files
from hallutrace.atomic_files import storage_errors, write
from hallutrace.errors import InputError, StorageError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "folder" / "file.json"


def test_a_file_is_made_with_its_folder_and_replaced(path: Path) -> None:
    write(path, b"old")
    write(path, b"new")
    assert path.read_bytes() == b"new"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("step", ["fsync", "replace"])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_what_fails_leaves_the_old_file_alone(
    path: Path, monkeypatch: pytest.MonkeyPatch, step: str, error: BaseException
) -> None:
    write(path, b"old")

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(*((os, step) if step == "fsync" else (Path, step)), fail)
    with pytest.raises(type(error)):
        write(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(path.parent.iterdir()) == [path]


def test_it_is_synced_before_it_gets_its_name_and_its_name_after(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path.parent.mkdir()
    seen = []
    fsync = os.fsync

    def watched(handle: int) -> None:
        seen.append((os.fstat(handle).st_size == 1_000_000, path.exists()))
        fsync(handle)

    monkeypatch.setattr(os, "fsync", watched)
    write(path, bytes(1_000_000))
    assert seen[0] == (True, False)
    if os.name != "nt":
        assert seen[1:] == [(False, True)]


def test_several_at_once_leave_one_whole_file(path: Path) -> None:
    contents = [bytes([number]) * 100_000 for number in range(16)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda content: write(path, content), contents))
    assert path.read_bytes() in contents
    assert list(path.parent.iterdir()) == [path]


def test_errors_of_the_file_system_are_told() -> None:
    with pytest.raises(StorageError) as caught, storage_errors("write x", "choose another"):
        raise OSError(28, "No space left on device")
    assert str(caught.value) == "Expected to write x, got: No space left on device - choose another"
    with pytest.raises(StorageError, match="got: no strerror - "), storage_errors("a", "b"):
        raise OSError("no strerror")


@pytest.mark.parametrize("error", [StorageError("ours"), InputError("ours"), KeyError("other")])
def test_other_errors_pass(error: Exception) -> None:
    with pytest.raises(type(error), match=str(error)) as caught, storage_errors("write x", "fix"):
        raise error
    assert caught.value is error


@pytest.mark.parametrize("is_known", [True, False])
def test_macos_syncs_past_the_cache_of_the_drive(
    path: Path, monkeypatch: pytest.MonkeyPatch, is_known: bool
) -> None:
    fcntl = pytest.importorskip("fcntl")
    asked: list[str] = []

    def request(handle: int, command: int) -> None:
        asked.append("full")
        if not is_known:
            raise OSError(45, "Operation not supported")

    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(fcntl, "F_FULLFSYNC", 51, raising=False)
    monkeypatch.setattr(fcntl, "fcntl", request)
    monkeypatch.setattr(os, "fsync", lambda handle: asked.append("plain"))
    write(path, b"new")
    each = ["full"] if is_known else ["full", "plain"]
    assert asked == 2 * each  # the file, then its folder


@pytest.mark.parametrize("change", [atomic_files.remove, lambda path: write(path, b"new")])
@pytest.mark.parametrize("refusals", [3, 1000])
def test_windows_waits_for_a_reader_to_close_the_file(
    path: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[Path], None], refusals: int
) -> None:
    write(path, b"old")
    waits: list[float] = []
    monkeypatch.setattr(atomic_files, "ON_WINDOWS", True)
    monkeypatch.setattr(time, "sleep", waits.append)
    for name in ("replace", "unlink"):
        monkeypatch.setattr(Path, name, refusing(getattr(Path, name), path, refusals))
    if refusals == 1000:
        with pytest.raises(PermissionError):
            change(path)
        assert (path.read_bytes(), sum(waits) < 2) == (b"old", True)
    else:
        change(path)
        assert (path.read_bytes() if path.exists() else b"new", len(waits)) == (b"new", refusals)


def refusing(action: Callable[..., object], busy: Path, refusals: int) -> Callable[..., object]:
    """An action on files that is refused so often as it concerns one of them."""
    left = [refusals]

    def refused(path: Path, *rest: object, **options: object) -> object:
        if busy in (path, *rest) and left[0]:
            left[0] -= 1
            raise PermissionError(13, "The process cannot access the file")
        return action(path, *rest, **options)

    return refused
