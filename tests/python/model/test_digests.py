"""The digest of a model's folder: of all bytes that matter, and read once."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hallutrace.errors import ModelError
from hallutrace.model import digests
from hallutrace.model.digests import FolderDigest, cache_file, digest_folder


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where digests are remembered: not in the home of who runs the tests."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(digests, "MIN_CACHED_SIZE", 1000)
    path = cache_file()
    assert path is not None
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Files of a checkpoint that were written some time ago."""
    folder = tmp_path / "model"
    folder.mkdir()
    for name, size in (("model.safetensors", 5000), ("config.json", 20), ("vocab.txt", 0)):
        (folder / name).write_bytes(bytes(size))
    return folder


def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files that were just written count as written long ago."""
    monkeypatch.setattr(digests, "MIN_AGE", -60.0)


def count_reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    read: list[str] = []
    real = digests._digest_part

    def counted(path: Path, begin: int) -> bytes:
        read.append(path.name)
        return real(path, begin)

    monkeypatch.setattr(digests, "_digest_part", counted)
    return read


@given(at=st.integers(0, 4999), part=st.sampled_from([64, 1000, 1024, 5000, 8192]))
def test_every_byte_counts(at: int, part: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("model")
    data = bytearray(range(256)) * 20
    path = folder / "model.safetensors"
    path.write_bytes(data[:5000])
    before, digests.PART = digests.PART, part
    try:
        first = digest_folder(folder).text
        data[at] ^= 1
        path.write_bytes(data[:5000])
        assert digest_folder(folder).text != first
        data[at] ^= 1
        path.write_bytes(data[:5000])
        assert digest_folder(folder).text == first
    finally:
        digests.PART = before


def test_names_sizes_and_places_count(folder: Path) -> None:
    seen = {digest_folder(folder).text}
    (folder / "vocab.txt").rename(folder / "merges.txt")
    seen.add(digest_folder(folder).text)
    (folder / "config.json").write_bytes(bytes(21))
    seen.add(digest_folder(folder).text)
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "tool.jinja").write_text("x")
    seen.add(digest_folder(folder).text)
    (folder / "modeling.py").write_text("x")
    seen.add(digest_folder(folder).text)
    (folder / "parts").mkdir()
    (folder / "parts" / "layers.py").write_text("x")
    seen.add(digest_folder(folder).text)
    assert len(seen) == 6


def test_what_nothing_reads_does_not_count(folder: Path) -> None:
    before = digest_folder(folder).text
    for name in ("README.md", "optimizer.pt", "training_args.bin", "trainer_state.json"):
        (folder / name).write_text("x")
    for name in ("checkpoint-100", ".git"):
        (folder / name).mkdir()
        (folder / name / "model.safetensors").write_text("x")
    assert digest_folder(folder).text == before


def test_links_are_followed(folder: Path, tmp_path: Path) -> None:
    before = digest_folder(folder)
    blob = tmp_path / "blob"
    (folder / "model.safetensors").rename(blob)
    (folder / "model.safetensors").symlink_to(blob)
    assert digest_folder(folder).text == before.text
    blob.write_bytes(bytes(4999) + b"x")
    assert digest_folder(folder).text != before.text
    # A download that was broken off leaves a link to nothing.
    blob.unlink()
    assert "model.safetensors" not in digest_folder(folder).stamps


def test_large_files_are_read_once(
    folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settled(monkeypatch)
    read = count_reads(monkeypatch)
    first = digest_folder(folder)
    assert sorted(read) == ["config.json", "model.safetensors", "vocab.txt"]
    read.clear()
    assert digest_folder(folder).text == first.text
    assert sorted(read) == ["config.json", "vocab.txt"]
    entries = json.loads(cache.read_text())["files"]
    assert list(entries) == [str((folder / "model.safetensors").resolve())]
    assert list(cache.parent.iterdir()) == [cache]


def test_another_time_size_or_file_is_read_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settled(monkeypatch)
    weights = folder / "model.safetensors"
    digest_folder(folder)
    read = count_reads(monkeypatch)
    stat = weights.stat()
    # The same size and time of writing, as a copy that keeps times has them.
    (folder / "new").write_bytes(bytes(4999) + b"x")
    os.utime(folder / "new", ns=(stat.st_atime_ns, stat.st_mtime_ns))
    (folder / "new").replace(weights)
    digest_folder(folder)
    assert "model.safetensors" in read
    read.clear()
    with weights.open("r+b") as file:
        file.write(b"y")
    os.utime(weights, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    digest_folder(folder)
    assert "model.safetensors" in read


def test_what_was_just_written_is_not_remembered(folder: Path, cache: Path) -> None:
    digest_folder(folder)
    assert not cache.exists()


def test_what_changes_while_it_is_read_is_not_remembered(
    folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settled(monkeypatch)
    real = digests._digest_part

    def meanwhile(path: Path, begin: int) -> bytes:
        if path.name == "model.safetensors":
            path.write_bytes(bytes(6000))
        return real(path, begin)

    monkeypatch.setattr(digests, "_digest_part", meanwhile)
    before = digest_folder(folder)
    assert not cache.exists()
    with pytest.raises(ModelError, match=r"got changes in model\.safetensors - "):
        before.check_unchanged()


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"version": 1}', '{"version": 1, "files": {"a": [1, 2]}}', "\x00"]
)
def test_a_damaged_cache_is_none(
    content: str, folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settled(monkeypatch)
    before = digest_folder(folder).text
    cache.write_text(content)
    assert digest_folder(folder).text == before
    assert json.loads(cache.read_text())["version"] == 1


def test_a_cache_that_cannot_be_written_is_none(
    folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settled(monkeypatch)
    cache.parent.parent.write_text("a file where the folder would be")
    assert digest_folder(folder).text == digest_folder(folder).text


def test_files_that_are_gone_are_forgotten(
    folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settled(monkeypatch)
    digest_folder(folder)
    (folder / "model.safetensors").rename(folder / "other.safetensors")
    digest_folder(folder)
    assert [Path(name).name for name in json.loads(cache.read_text())["files"]] == [
        "other.safetensors"
    ]


def test_a_user_without_a_home_has_no_cache(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setattr(Path, "home", none)
    assert cache_file() is None
    assert digest_folder(folder).text.startswith("folder-")


def test_much_to_read_is_said(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    digest_folder(folder, said.append)
    assert said == []
    monkeypatch.setattr(digests, "NOTIFY_SIZE", 5000)
    digest_folder(folder, said.append)
    assert said == [f"Reading the 0 GB of {folder} once, to tell this model from others"]


def test_a_file_that_cannot_be_read_is_an_error_line(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(path: Path, begin: int) -> bytes:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(digests, "_digest_part", refused)
    with pytest.raises(ModelError, match=r"Expected to read all files of .* Permission denied"):
        digest_folder(folder)


def test_writes_in_place_are_told_from_replaced_files(folder: Path) -> None:
    before: FolderDigest = digest_folder(folder)
    before.check_in_place()
    (folder / "config.json").write_text("only weights stay mapped")
    (folder / "new").write_bytes(bytes(7))
    (folder / "new").replace(folder / "model.safetensors")
    before.check_in_place()
    (folder / "model.safetensors").unlink()
    before.check_in_place()
    (folder / "model.safetensors").write_bytes(bytes(5000))
    now = digest_folder(folder)
    with (folder / "model.safetensors").open("ab") as file:
        file.write(b"x")
    with pytest.raises(ModelError, match=r"got writes to model\.safetensors - "):
        now.check_in_place()
