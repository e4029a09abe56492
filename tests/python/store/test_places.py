"""Where runs lie: read-only disks, names of every kind, folders that are none, pipes that close."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import hallutrace
from conftest import RUN_OPTIONS, Extract, question_rows, write_lines
from hallutrace.commands.app import main
from hallutrace.config import ExtractConfig
from hallutrace.errors import InputError, StorageError
from hallutrace.store import claims
from hallutrace.store.failures import Failure, FailureLog
from hallutrace.store.folder import Run

COMMAND = "import torch; torch.set_num_threads(1); from hallutrace.commands.app import main; main()"


def options_of(checkpoint: Path, questions: Path | str, out: Path | str) -> list[str]:
    chosen = {"model": checkpoint, "questions": questions, "out": out, **RUN_OPTIONS}
    return [
        word
        for name, value in chosen.items()
        for word in ("--" + name.replace("_", "-"), str(value))
    ]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, sys.path))}


def files_of(folder: Path) -> dict[str, bytes]:
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


# Disks that refuse ------------------------------------------------------------------------------

UNSHARE = ["unshare", "--mount", "--map-root-user"]
READ_ONLY = 'mount --bind "$1" "$1" && mount -o remount,bind,ro "$1" && shift && exec "$@"'


def can_mount(folder: Path) -> bool:
    words = [*UNSHARE, "sh", "-c", READ_ONLY, "sh", str(folder), "true"]
    return (
        bool(shutil.which("unshare")) and not subprocess.run(words, capture_output=True).returncode
    )


def read_only(folder: Path, words: list[str]) -> subprocess.CompletedProcess[str]:
    """A command that finds the folder on a disk that is read-only."""
    command = [*UNSHARE, "sh", "-c", READ_ONLY, "sh", str(folder), sys.executable, "-c", COMMAND]
    return subprocess.run(
        [*command, *words], capture_output=True, text=True, env=environment(), check=False
    )


def test_a_run_on_a_read_only_disk(
    run_extract: Extract, checkpoint: Path, questions: Path, tmp_path: Path
) -> None:
    run_extract(limit=4)
    if not can_mount(tmp_path / "run"):
        pytest.skip("a mount of one's own is not permitted here")
    (tmp_path / "run" / "labels").rmdir()  # copies often lack folders that are empty
    before = files_of(tmp_path / "run")
    words = ["extract", *options_of(checkpoint, questions, tmp_path / "run")]
    again = read_only(tmp_path / "run", [*words, "--limit", "4"])
    assert (again.returncode, "Traceback" in again.stderr) == (0, False), again.stderr
    assert "nothing left to do" in again.stdout
    for command in ("inspect", "verify"):
        assert read_only(tmp_path / "run", [command, str(tmp_path / "run")]).returncode == 0
    more = read_only(tmp_path / "run", words)
    assert (more.returncode, "Traceback" in more.stderr) == (2, False)
    assert "Error: Expected to make the folder" in more.stderr
    assert "Read-only file system" in more.stderr
    over = read_only(tmp_path / "run", [*words, "--overwrite"])
    assert (over.returncode, "Traceback" in over.stderr) == (2, False)
    assert files_of(tmp_path / "run") == before


def test_a_folder_that_nobody_may_write_to_leaves_leftovers(
    run_extract: Extract, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_extract()
    (tmp_path / "run" / "partial" / "00000.journal").write_text("")

    def refused(*_: object, **__: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Path, "unlink", refused)
    assert run_extract().new_traces == 0


@pytest.mark.parametrize("error", [28, 13, 5, 122])
def test_failures_that_cannot_be_written_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    log = FailureLog(tmp_path / "failures.jsonl")

    def refused(number: int) -> None:
        raise OSError(error, os.strerror(error))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", refused)
        with pytest.raises(StorageError, match=os.strerror(error)):
            log.add(Failure("q", None, 0, "prompt", "no"))
    log.add(Failure("q", None, 0, "prompt", "no"))  # it is not taken for written
    assert [one.id for one in log.read()] == ["q"]


def test_a_disk_that_fills_while_a_shard_is_claimed_is_told(
    run_extract: Extract, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "link", full)
        with pytest.raises(StorageError, match="got: No space left on device - make the folder"):
            run_extract()
    assert run_extract().traces == 7


@pytest.mark.parametrize("command", ["extract", "inspect", "verify", "repair", "merge", "subset"])
@pytest.mark.parametrize("name", [300 * "a", "file/run", "loop/run", "null"])
def test_a_place_that_is_none_is_told(
    checkpoint: Path,
    questions: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    command: str,
    name: str,
) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "null").write_text("")
    (tmp_path / "loop").symlink_to("loop")
    place = str(tmp_path / name)
    words = {
        "extract": options_of(checkpoint, questions, place),
        "merge": [place, place, "--out", place],
        "subset": [place, "--out", place],
    }.get(command, [place])
    monkeypatch.setattr(sys, "argv", ["hallutrace", command, *words])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert capsys.readouterr().err.rpartition("Error: ")[2].startswith("Expected ")


def test_a_run_behind_a_link_is_a_run(run_extract: Extract, tmp_path: Path) -> None:
    (tmp_path / "large-disk").mkdir()
    (tmp_path / "run").symlink_to(tmp_path / "large-disk", target_is_directory=True)
    run_extract(limit=1)
    assert run_extract(limit=2).traces == 2
    assert (tmp_path / "large-disk" / "manifest.json").is_file()


# Names ------------------------------------------------------------------------------------------


def test_the_home_folder_is_meant(
    run_extract: Extract,
    questions: Path,
    checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(tmp_path)
    shutil.copy(questions, home / "seven.jsonl")
    (home / "run.yaml").write_text("limit: 1\nout: ~/runs/mine\n")
    config = ExtractConfig.from_options(
        {"questions": "~/seven.jsonl", "model": "~/tiny", "responses": "~/given.jsonl"},
        config="~/run.yaml",
    )
    assert config.out == home / "runs" / "mine"
    assert config.questions == str(home / "seven.jsonl")
    assert config.model == str(home / "tiny")
    assert config.responses == home / "given.jsonl"
    run_extract(questions="~/seven.jsonl", out="~/run", limit=1)
    assert len(hallutrace.open("~/run")) == 1
    assert not (tmp_path / "~").exists()
    hallutrace.subset("~/run", "~/part", ids=["q0"])
    assert (home / "part" / "manifest.json").is_file()
    monkeypatch.setattr(sys, "argv", ["hallutrace", "verify", "~/run"])
    main_quietly()
    monkeypatch.setattr(
        sys, "argv", ["hallutrace", "subset", "~/run", "--out=~/other", "--ids=@~/ids"]
    )
    (home / "ids").write_text("q0\n")
    main_quietly()
    assert (home / "other" / "manifest.json").is_file()
    # A folder that is really called so, and a user who is not there.
    run_extract(out="./~", limit=1)
    run_extract(out="~nobody-of-that-name", limit=1)
    assert (tmp_path / "~" / "manifest.json").is_file()
    assert (tmp_path / "~nobody-of-that-name" / "manifest.json").is_file()


def main_quietly() -> None:
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code in (0, None)


def test_a_path_with_a_zero_byte_is_refused() -> None:
    with pytest.raises(InputError, match="zero byte"):
        ExtractConfig.from_options({"out": "a\0b"})


def test_names_that_are_no_text_are_kept_and_printed(
    checkpoint: Path, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    folder = os.fsencode(tmp_path) + b"/caf\xe9"
    try:
        Path(os.fsdecode(folder)).mkdir()
    except OSError:
        pytest.skip("this file system has no such names")
    write_lines(Path(os.fsdecode(folder + b"/q\xff.jsonl")), question_rows(2))
    words = options_of(
        checkpoint, os.fsdecode(folder + b"/q\xff.jsonl"), os.fsdecode(folder + b"/run")
    )
    runs = {
        "extract": ["extract", *words, "--json"],
        "again": ["extract", *words],
        "inspect": ["inspect", os.fsdecode(folder + b"/run")],
        "json": ["inspect", os.fsdecode(folder + b"/run"), "--json"],
        "verify": ["verify", os.fsdecode(folder + b"/run")],
        "repair": ["repair", os.fsdecode(folder + b"/run"), "--json"],
        "missing": ["inspect", os.fsdecode(folder + b"/none")],
    }
    said = {
        name: subprocess.run(
            [sys.executable, "-c", COMMAND, *words],
            capture_output=True,
            env=environment(),
            check=False,
        )
        for name, words in runs.items()
    }
    for name, one in said.items():
        assert one.returncode == (2 if name == "missing" else 0), one.stderr
        assert b"Traceback" not in one.stderr
    assert json.loads(said["extract"].stdout)["folder"] == os.fsdecode(folder + b"/run")
    assert json.loads(said["json"].stdout)["run"]["identity"]["source"]["spec"] == "q\udcff.jsonl"
    said["inspect"].stdout.decode("utf-8")
    manifest = Path(os.fsdecode(folder + b"/run/manifest.json")).read_bytes().decode("utf-8")
    assert "q\\udcff.jsonl" in manifest
    assert Run(Path(os.fsdecode(folder + b"/run"))).manifest().identity["source"]["spec"] == (
        "q\udcff.jsonl"
    )


# Pipes ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "command",
    [
        "inspect RUN",
        "inspect RUN --json",
        "inspect RUN --trace 0",
        "verify RUN",
        "verify RUN --json",
    ],
)
def test_a_pipe_that_closes_ends_quietly(
    run_extract: Extract, tmp_path: Path, command: str
) -> None:
    run_extract(limit=1)
    words = [str(tmp_path / "run") if word == "RUN" else word for word in command.split()]
    read, write = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-c", COMMAND, *words],
        stdout=write,
        stderr=subprocess.PIPE,
        env=environment(),
    )
    os.close(write)
    os.close(read)  # whoever read is gone before the first line
    _, error = process.communicate()
    assert (process.returncode, error) == (141, b"")


def test_nobody_hears_of_a_mistake(tmp_path: Path) -> None:
    read, write = os.pipe()
    words = [sys.executable, "-c", COMMAND, "verify", str(tmp_path)]
    process = subprocess.Popen(words, stdout=write, stderr=write, env=environment())
    os.close(write)
    os.close(read)
    assert process.wait() == 141


# Races of folders -------------------------------------------------------------------------------


def test_a_run_that_is_begun_meanwhile_is_no_strangers_folder(
    run_extract: Extract, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process writes the manifest between two looks at the folder."""
    run_extract(limit=1)
    run, looks = Run(tmp_path / "run"), []
    exists = Run.exists

    def late(self: Run) -> bool:
        looks.append(self)
        return len(looks) > 1 and exists(self)

    monkeypatch.setattr(Run, "exists", late)
    (run.folder / "failures.jsonl").write_text("")
    run.check_ours()
    assert len(looks) == 1


def test_a_claim_in_a_folder_that_is_gone_is_told(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="Expected to claim the shard 00000 in"):
        claims.claim(tmp_path / "none", "00000", 1)
