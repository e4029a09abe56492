"""The core from Python: its faults, its threads, its floating point, and shards it goes on with."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

import hallutrace
from conftest import Extract
from hallutrace import _core
from hallutrace.errors import InputError, InternalError, StorageError, UnrecordedError
from hallutrace.store.folder import CommitRecord, Run
from hallutrace.store.repair import repair
from made_shards import begin_shard, finish_shard

SETS = _core.instruction_sets()


@pytest.fixture
def flushed() -> Iterator[None]:
    """Subnormals are flushed on this thread."""
    if not torch.set_flush_denormal(True):
        pytest.skip("this processor does not flush subnormals")
    yield
    torch.set_flush_denormal(False)


def subnormal(heads: int, tokens: int) -> np.ndarray:
    """Causal attention with zeros and subnormals, by their bits; NaN where nothing is read."""
    rng = np.random.default_rng(4)
    bits = rng.integers(0, 1 << 20, (heads, tokens, tokens), np.uint32)
    bits *= rng.integers(0, 2, bits.shape, np.uint32)
    weights = bits.view(np.float32).copy()
    weights[:, :, ::7] = rng.random(weights[:, :, ::7].shape, np.float32) / tokens
    rows, keys = np.triu_indices(tokens, 1)
    weights[:, rows, keys] = np.nan
    return weights


RULES = [{"top_k": 8}, {"top_k": 16}, {"top_k": 40}, {"min_weight": 1e-40}, {"top_mass": 0.9}, {}]


@pytest.mark.parametrize("rules", RULES, ids=str)
@pytest.mark.parametrize("heads", ["mean", "max", "each"])
def test_flushed_subnormals_change_no_bit(rules: dict, heads: str, request) -> None:
    attention = subnormal(3, 70)
    wanted = hallutrace.sparsify(attention, heads=heads, **rules)
    assert len(wanted.keys) > 0
    request.getfixturevalue("flushed")
    for name in SETS:
        _core._use_instruction_set(name)
        try:
            made = hallutrace.sparsify(attention, heads=heads, **rules)
        finally:
            _core._use_instruction_set(None)
        for field in ("indptr", "keys", "weights", "retained"):
            one, other = np.asarray(getattr(made, field)), np.asarray(getattr(wanted, field))
            assert one.tobytes() == other.tobytes(), (name, field)


def test_flushed_subnormals_change_no_marginal_and_no_reduction(request) -> None:
    attention = subnormal(2, 70)

    def everything() -> list[bytes]:
        marginals = hallutrace.marginals(attention, segments=[9, 30])
        options = {"top_k": 8, "min_weight": 0.0, "top_mass": None, "combine": "each"}
        reducer = _core.LayerReducer(
            2, [(70, 30, [1, 30])], answer_edges=False, all_marginal_rows=True, **options
        )
        reducer.push(attention[None], False, 0)
        [layer] = reducer.finish()
        names = ("diagonal", "previous", "received", "entropy", "square", "mass", "rough")
        arrays = [getattr(marginals, name) for name in names]
        names = ("keys", "weights", "diagonal", "received_mean", "entropy", "square", "mass")
        names += ("rough", "log_diagonal", "log_square")
        arrays += [getattr(layer, name) for name in names]
        return [array.tobytes() for array in arrays]

    wanted = everything()
    request.getfixturevalue("flushed")
    assert everything() == wanted


def test_a_fault_of_the_core_is_an_error_that_says_what_to_do() -> None:
    for _ in range(2):
        with pytest.raises(InternalError, match=r"on purpose at rust/python/threads\.rs") as caught:
            _core._panic()
        assert isinstance(caught.value, RuntimeError)
        assert "please report this" in str(caught.value)
    # And it goes on working.
    assert len(hallutrace.sparsify(np.eye(3, dtype=np.float32), top_k=2).keys) == 3


def test_threads_are_as_many_as_were_set() -> None:
    before = _core.get_threads()
    weights = np.tril(np.random.default_rng(0).random((4, 600, 600), np.float32))
    wanted = hallutrace.sparsify(weights, top_k=4, heads="each")
    try:
        for count in (1, 3, 2):
            _core.set_threads(count)
            assert _core.get_threads() == count
            made = hallutrace.sparsify(weights, top_k=4, heads="each")
            assert made.weights.tobytes() == wanted.weights.tobytes()
        for count in (0, -1):
            with pytest.raises(InputError, match=f">= 1 threads or None, got {count} - pass"):
                _core.set_threads(count)
    finally:
        _core.set_threads(None)
    assert _core.get_threads() == before


def test_the_environment_says_how_many_threads_there_are() -> None:
    script = "from hallutrace import _core; print(_core.get_threads())"
    for asked, wanted in (("3", "3"), ("0", None), ("many", None)):
        environment = {"PATH": "", "PYTHONPATH": ":".join(sys.path), "RAYON_NUM_THREADS": asked}
        out = subprocess.check_output([sys.executable, "-c", script], env=environment, text=True)
        assert out.strip() == wanted or (wanted is None and int(out) >= 1)


def names_of(folder: Path) -> dict[str, bytes]:
    paths = [folder / "manifest.json", *(folder / "shards").iterdir()]
    return {path.name: path.read_bytes() for path in paths}


@pytest.mark.parametrize("left", [None, "00001.safetensors", "00001.journal"])
@pytest.mark.parametrize("again", ["extract", "repair"])
def test_a_finished_shard_without_its_record_is_recorded_again(
    run_extract: Extract, tmp_path: Path, left: str | None, again: str
) -> None:
    run_extract()
    run = tmp_path / "run"
    whole = names_of(run)
    (run / "shards" / "00001.json").unlink()
    if left:
        (run / "partial" / left).write_bytes(b"something else")
    if again == "repair":
        list(repair(run))
        assert run_extract().new_traces == 0
    else:
        assert run_extract().new_traces == 3
    assert names_of(run) == whole
    assert not list((run / "partial").iterdir())


def test_a_finished_shard_of_another_run_is_kept_and_named(
    run_extract: Extract, tmp_path: Path
) -> None:
    run_extract()
    run_extract(out=tmp_path / "other", hidden_states="none")
    run = tmp_path / "run"
    (run / "shards" / "00001.json").unlink()
    other = (tmp_path / "other" / "shards" / "00001.safetensors").read_bytes()
    (run / "shards" / "00001.safetensors").write_bytes(other)
    with pytest.raises(UnrecordedError, match=r"Expected the shard 00001 of the run [0-9a-f]{16}"):
        run_extract()
    assert (run / "shards" / "00001.safetensors").read_bytes() == other


@pytest.mark.parametrize("left", [None, "00000.safetensors"])
def test_a_shard_that_was_finished_and_not_recorded_is_taken_as_it_is(
    run_extract: Extract, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, left: str | None
) -> None:
    run = tmp_path / "run"

    def fail(self: Run, record: CommitRecord) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Run, "commit", fail)
        with pytest.raises(KeyboardInterrupt):
            run_extract()
    shard = run / "shards" / "00000.safetensors"
    before = shard.stat().st_ino
    if left:
        (run / "partial" / left).write_bytes(b"something else")
    run_extract()
    assert shard.stat().st_ino == before
    assert not list((run / "partial").iterdir())
    run_extract(out=tmp_path / "undisturbed")
    assert names_of(run) == names_of(tmp_path / "undisturbed")


def test_a_writer_is_spent_after_an_error_and_superseded_by_an_heir(tmp_path: Path) -> None:
    predecessor, record = begin_shard(tmp_path, "00000", 1)
    predecessor.check_names()
    heir, _ = begin_shard(tmp_path, "00000", 1)
    predecessor.end_batch("nothing")
    with pytest.raises(StorageError, match="another process goes on with the shard"):
        predecessor.sync()
    with pytest.raises(StorageError, match="Expected a writer without errors"):
        predecessor.finish({}, [], [])
    heir.sync()
    finish_shard(heir, record, [])
