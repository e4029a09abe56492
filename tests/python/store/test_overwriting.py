"""Starting a run over: what goes, what is refused, and what a kill leaves."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from conftest import Extract, question_rows, write_lines
from hallutrace.errors import InputError, ModelError
from hallutrace.labels import label
from hallutrace.store import overwriting
from hallutrace.store.claims import Claim, Holder, claim
from hallutrace.store.folder import Run


def files_of(folder: Path) -> dict[str, bytes]:
    """Everything in a folder, by path."""
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def test_overwriting_begins_anew(run_extract: Extract, tmp_path: Path) -> None:
    rows = [{**row, "answers": ["north"]} for row in question_rows(2)]
    source = str(write_lines(tmp_path / "two.jsonl", rows))
    run_extract(questions=source)
    label(tmp_path / "run", "contains")
    summary = run_extract(questions=source, limit=1, top_k=3, overwrite=True)
    assert (summary.traces, summary.new_traces) == (1, 1)
    assert Run(tmp_path / "run").manifest().identity["sparsification"]["top_k"] == 3
    assert not list((tmp_path / "run" / "labels").iterdir())
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [
        *("labels", "manifest.json", "partial", "shards"),
    ]


def test_projections_go_with_the_run_that_they_are_of(run_extract: Extract, tmp_path: Path) -> None:
    run_extract(limit=1)
    stored = tmp_path / "run" / "projections" / "pca-layer0-last-seed0.safetensors"
    stored.parent.mkdir()
    stored.write_bytes(b"of the old run")
    run_extract(limit=1, top_k=3, overwrite=True)
    assert not stored.parent.exists()


def test_a_file_that_is_no_part_of_the_run_stays(run_extract: Extract, tmp_path: Path) -> None:
    run_extract(limit=1)
    (tmp_path / "run" / "notes.md").write_text("years of work")
    run_extract(limit=1, top_k=3, overwrite=True)
    assert (tmp_path / "run" / "notes.md").read_text() == "years of work"


def test_overwriting_keeps_the_run_where_the_model_does_not_load(
    run_extract: Extract, tmp_path: Path
) -> None:
    run_extract(limit=2)
    before = files_of(tmp_path / "run")
    with pytest.raises(ModelError):
        run_extract(model=str(tmp_path / "nowhere"), overwrite=True)
    assert files_of(tmp_path / "run") == before


@pytest.mark.parametrize("about", [None, {"by": "file"}, {"by": "a-judge-of-ones-own"}], ids=str)
def test_labels_of_people_are_not_deleted(
    run_extract: Extract, tmp_path: Path, about: dict[str, str] | None
) -> None:
    run_extract(limit=2)
    labels = tmp_path / "run" / "labels"
    (labels / "mine.jsonl").write_text('{"id": "q0", "sample": 0, "label": 1, "score": null}\n')
    if about is not None:
        content = {"schema": 1, "parameters": about, "counts": {}}
        (labels / "mine.json").write_text(json.dumps(content))
    before = files_of(tmp_path / "run")
    with pytest.raises(InputError) as raised:
        run_extract(limit=1, top_k=3, overwrite=True)
    assert str(raised.value) == (
        f"Expected a run without labels from a file, got mine.jsonl in {labels}, which would be "
        "deleted - move these files to another folder (`hallutrace label --from` takes them "
        "again), or choose another `out`"
    )
    assert files_of(tmp_path / "run") == before


def test_a_run_that_another_process_writes_is_not_deleted(
    run_extract: Extract, tmp_path: Path
) -> None:
    run_extract(limit=2)
    run = Run(tmp_path / "run")
    mine = claim(run.partial, "00007", 3)
    assert isinstance(mine, Claim)
    with mine:
        before = files_of(run.folder)
        with pytest.raises(InputError) as raised:
            run_extract(limit=1, overwrite=True)
        assert str(raised.value).startswith(
            f"Expected a run that no other process uses, got process {os.getpid()} on "
        )
        assert files_of(run.folder) == before
    run_extract(limit=1, overwrite=True)


def test_a_writer_that_comes_meanwhile_keeps_the_run(
    run_extract: Extract, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It claimed a shard between the look at claims and the end of the manifest."""
    run_extract(limit=2)
    run = Run(tmp_path / "run")
    before, rename = files_of(run.folder), Path.rename

    def renamed(path: Path, to: Path) -> Path:
        if path.name == "manifest.json" and not list(run.partial.glob("*.claim")):
            far = replace(Holder.me(3), boot="another")
            (run.partial / "00007.claim").write_text(json.dumps(asdict(far)))
        return rename(path, to)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", renamed)
        with pytest.raises(
            InputError, match="Expected a run that no other process uses, got process"
        ):
            overwriting.clear(run)
    assert files_of(run.folder).items() - before.items() == {
        ("partial/00007.claim", (run.partial / "00007.claim").read_bytes())
    }
    assert {path.name for path in run.folder.iterdir()} == {
        *("manifest.json", "shards", "partial", "labels")
    }


def test_a_writer_whose_run_was_overwritten_stops(
    run_extract: Extract, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(tmp_path / "run")

    make_folders, calls = Run.make_folders, 0

    def made(self: Run) -> None:
        """Starts the run over when the process comes to its second shard."""
        nonlocal calls
        calls += self.folder == run.folder
        if calls == 3:  # the first is for the manifest
            calls = 99
            run_extract(limit=1, top_k=3, out=tmp_path / "other")
            shutil.rmtree(run.folder)
            shutil.copytree(tmp_path / "other", run.folder)
        make_folders(self)

    monkeypatch.setattr(Run, "make_folders", made)
    with pytest.raises(InputError, match="another that was begun meanwhile with `overwrite=T"):
        run_extract(shard_size=1)
    assert {name: data for name, data in files_of(run.folder).items() if "claim" not in name} == (
        files_of(tmp_path / "other")
    )


class KilledError(BaseException):
    """A kill, where it comes."""


def test_a_kill_at_any_step_leaves_a_whole_run_or_none(
    run_extract: Extract, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_extract(limit=2, out=tmp_path / "kept")
    whole = files_of(tmp_path / "kept")
    ends: list[bool] = []
    for step in range(1, 50):
        folder = tmp_path / f"run{step}"
        shutil.copytree(tmp_path / "kept", folder)
        calls = 0

        def counted(function, step=step):  # type: ignore[no-untyped-def]
            def call(*args, **kwargs):  # type: ignore[no-untyped-def]
                nonlocal calls
                calls += 1
                if calls >= step:
                    raise KilledError
                return function(*args, **kwargs)

            return call

        with monkeypatch.context() as patch:
            for owner, name in ((Path, "rename"), (Path, "mkdir"), (shutil, "rmtree")):
                patch.setattr(owner, name, counted(getattr(owner, name)))
            try:
                overwriting.clear(Run(folder))
            except KilledError:
                pass
            else:
                break
        ends.append(Run(folder).exists())
        if ends[-1]:
            left = files_of(folder)
            assert {name: left[name] for name in whole} == whole
        Run(folder).check_ours()
        overwriting.clear_remains(Run(folder))
        # Nothing of the old run is left that could be taken for a new one's.
        assert files_of(folder) == (whole if ends[-1] else {})
    assert ends[0]
    assert not ends[-1]
    assert len(ends) > 5


def test_a_run_behind_a_link_is_started_over(run_extract: Extract, tmp_path: Path) -> None:
    run_extract(limit=2, out=tmp_path / "large-disk")
    (tmp_path / "run").symlink_to(tmp_path / "large-disk", target_is_directory=True)
    assert run_extract(limit=1, top_k=3, overwrite=True).traces == 1
    assert (tmp_path / "run").is_symlink()
    assert len(list((tmp_path / "large-disk" / "shards").iterdir())) == 2


def test_two_that_start_a_run_over_do_not_meet(run_extract: Extract, tmp_path: Path) -> None:
    run_extract(limit=1)
    before = files_of(tmp_path / "run")
    mine = claim(tmp_path / "run", ".overwriting", 0)
    assert isinstance(mine, Claim)
    with mine:
        with pytest.raises(InputError, match="which does so as well - let it end, or choose"):
            run_extract(limit=1, overwrite=True)
        mine.done = True
    assert files_of(tmp_path / "run") == before
