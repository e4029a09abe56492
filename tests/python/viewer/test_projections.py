"""Projections: PCA against numpy's SVD, neighbours against brute force, files that are refused."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import hallutrace
from detect_runs import Made, causal_attention, write_run
from hallutrace import ExtractConfig, extract
from hallutrace.detect.features import hidden_vectors
from hallutrace.errors import DamagedError, InputError, MissingExtraError, NotInRunError
from hallutrace.viewer.projections import files
from hallutrace.viewer.projections.files import Wanted
from hallutrace.viewer.projections.hidden import HiddenStates, map_tokens
from hallutrace.viewer.projections.neighbours import neighbour_preservation, sampled
from hallutrace.viewer.projections.pca import principal_components
from hallutrace.viewer.projections.projection import project

Command = Callable[..., tuple[int, str, str]]
WANTED = Wanted("pca", 1, "last_answer", 0)


def svd_positions(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Positions along the first two axes, and the share of the variance along each."""
    centred = vectors - vectors.mean(axis=0, dtype=np.float64)
    _, singular, axes = np.linalg.svd(centred, full_matrices=False)
    for axis in axes:
        axis *= np.sign(axis[np.abs(axis).argmax()])
    return centred @ axes[:2].T, (singular**2 / (singular**2).sum())[:2]


@pytest.mark.parametrize("shape", [(7, 40), (90, 12), (900, 400)])
def test_components_are_those_of_numpy(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    spread = 0.97 ** np.arange(shape[1])
    vectors = (rng.normal(size=shape) * spread + 300).astype(np.float32)  # far from the origin
    found = principal_components(lambda: np.array_split(vectors, 4), len(vectors), 2)
    positions, explained = svd_positions(vectors)
    np.testing.assert_allclose(found.explained, explained, rtol=1e-8)
    np.testing.assert_allclose(found.of(vectors), positions, atol=1e-4)


def test_axes_of_equal_variance_are_axes_too() -> None:
    vectors = np.vstack([np.eye(300), -np.eye(300)]).astype(np.float32)
    found = principal_components(lambda: [vectors], 600, 2)
    np.testing.assert_allclose(found.axes.T @ found.axes, np.eye(2), atol=1e-9)
    np.testing.assert_allclose(found.explained, 1 / 300, rtol=1e-8)


def test_vectors_that_are_all_equal_have_no_variance() -> None:
    found = principal_components(lambda: [np.ones((5, 3), np.float32)], 5, 2)
    assert found.explained.tolist() == [0, 0]
    assert not found.of(np.ones((5, 3), np.float32)).any()


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 30), st.integers(1, 6), st.integers(1, 12), st.integers(0, 2**32 - 1))
def test_preservation_is_that_of_brute_force(count: int, size: int, k: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    vectors, positions = rng.normal(size=(count, size)), rng.normal(size=(count, 2))
    most = min(k, count - 1)
    kept = 0
    for at in range(count):
        others = [other for other in range(count) if other != at]
        there, here = (
            set(
                sorted(
                    others,
                    key=lambda other, points=points, at=at: np.linalg.norm(
                        points[at] - points[other]
                    ),
                )[:most]
            )
            for points in (vectors, positions)
        )
        kept += len(there & here)
    found = neighbour_preservation(vectors, positions, k)
    assert found.share == pytest.approx(kept / (count * most))
    assert (found.k, found.traces, found.chance) == (most, count, most / (count - 1))


def test_a_single_trace_has_no_neighbours() -> None:
    assert neighbour_preservation(np.zeros((1, 3)), np.zeros((1, 2))).share is None


def test_a_sample_is_ascending_and_without_repeats() -> None:
    drawn = sampled(5000, seed=3, most=100)
    assert len(set(drawn.tolist())) == 100
    assert (np.diff(drawn) > 0).all()
    assert drawn.tolist() == sampled(5000, seed=3, most=100).tolist()


@pytest.mark.parametrize("token", ["last_prompt", "last_answer", "last", "mean_answer"])
def test_a_pca_of_a_run_is_that_of_its_vectors(demo_run: Path, token: Any) -> None:
    store = hallutrace.open(demo_run)
    found = project(store, "pca", 2, token)
    positions, explained = svd_positions(hidden_vectors(store, 2, token))
    np.testing.assert_allclose(found.positions, positions, atol=1e-4)
    np.testing.assert_allclose(found.explained, explained, rtol=1e-6)
    vectors = hidden_vectors(store, 2, token)
    assert found.preservation == neighbour_preservation(vectors, found.positions)


def test_the_first_answer_token_is_token_p(demo_run: Path) -> None:
    store = hallutrace.open(demo_run)
    (block,) = HiddenStates(store, 1, "first_answer").blocks("reading")
    trace = store[5]
    assert isinstance(trace.hidden_tokens, range)
    row = trace.hidden_tokens.index(trace.prompt_length)
    np.testing.assert_array_equal(block[5], trace.hidden(1)[row])


def test_pooled_states_have_their_four_tokens(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    made = [
        Made(causal_attention((1, 2, 9), rng), prompt=5, hidden=rng.normal(size=(1, 5, 4)))
        for _ in range(6)
    ]
    store = hallutrace.open(write_run(tmp_path / "pooled", made, states="pooled"))
    assert map_tokens(store) == ["last_answer", "last_prompt", "last", "mean_answer"]
    found = project(store, token="mean_answer")
    expected, _ = svd_positions(hidden_vectors(store, 0, "mean_answer"))
    np.testing.assert_allclose(found.positions, expected, atol=1e-5)


def test_a_run_without_hidden_states_says_how_to_keep_them(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    run = write_run(tmp_path / "run", [Made(causal_attention((1, 2, 9), rng), prompt=5)])
    with pytest.raises(NotInRunError, match="hallutrace extract --hidden-states answer"):
        project(hallutrace.open(run))


@pytest.mark.parametrize(
    ("choice", "told"),
    [
        ({"method": "mds"}, "Expected one of the methods pca, tsne, umap, got 'mds'"),
        ({"layer": 9}, r"Expected a layer with hidden states \(0, 1, 2, 3\), got 9"),
        ({"token": "first"}, "Expected a token with hidden states .*, got 'first'"),
    ],
)
def test_what_a_run_does_not_have_is_refused(demo_run: Path, choice: Any, told: str) -> None:
    with pytest.raises(InputError, match=told):
        project(hallutrace.open(demo_run), **choice)


@pytest.fixture
def own_run(demo_run: Path, tmp_path: Path) -> Path:
    """The demo run, to be written into."""
    return Path(shutil.copytree(demo_run, tmp_path / "own"))


def test_a_file_gives_back_what_was_written(own_run: Path) -> None:
    store = hallutrace.open(own_run)
    made = project(store, layer=1)
    path = files.write(store, made)
    assert files.stored(store) == [WANTED]
    found = files.read(store, WANTED)
    np.testing.assert_array_equal(found.positions, made.positions)
    assert {**vars(found), "positions": 0} == {**vars(made), "positions": 0}
    before = path.read_bytes()
    files.write(store, project(store, layer=1))
    assert path.read_bytes() == before


def test_a_damaged_file_is_refused(own_run: Path) -> None:
    store = hallutrace.open(own_run)
    path = files.write(store, project(store, layer=1))
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[-1] ^= 1
    for content in (bytes(flipped), whole[:-9], b"", b"\0" * 200):
        path.write_bytes(content)
        with pytest.raises(DamagedError, match=r"hallutrace project .* makes it anew"):
            files.read(store, WANTED)


def test_a_file_of_another_name_is_refused(own_run: Path) -> None:
    store = hallutrace.open(own_run)
    path = files.write(store, project(store, layer=1))
    path.rename(path.with_name(f"{Wanted('pca', 2, 'last_answer', 0).name}.safetensors"))
    with pytest.raises(DamagedError, match="Expected the projection pca-layer2-last_answer-seed0"):
        files.read(store, Wanted("pca", 2, "last_answer", 0))


def test_a_projection_of_another_or_a_smaller_run_is_refused(own_run: Path, tmp_path: Path) -> None:
    options = {"model": "demo", "device": "cpu", "seed": 5}
    extract(ExtractConfig(questions="demo:6", out=tmp_path / "six", **options))
    six, own = hallutrace.open(tmp_path / "six"), hallutrace.open(own_run)
    path = files.write(own, project(own, layer=1))
    files.path_of(six, WANTED).parent.mkdir()
    files.path_of(six, WANTED).write_bytes(path.read_bytes())
    with pytest.raises(NotInRunError, match="is of another run"):
        files.read(six, WANTED)
    made = project(own, layer=1)
    fewer = {**made.run, "traces": 59, "keys": "0" * 16}  # as it was before it grew
    files.write(own, replace(made, positions=made.positions[:59], run=fewer))
    with pytest.raises(NotInRunError, match="is of 59 traces, and the run now has 60"):
        files.read(own, WANTED)


@pytest.mark.parametrize(
    ("method", "package"), [("tsne", "openTSNE"), ("umap", "umap")], ids=["tsne", "umap"]
)
def test_an_embedding_keeps_more_neighbours_than_chance(
    demo_run: Path, method: str, package: str
) -> None:
    pytest.importorskip(package)
    store, steps = hallutrace.open(demo_run), []
    found = project(store, method, 3, seed=1, progress=lambda *step: steps.append(step))
    assert found.positions.shape == (60, 2)
    assert np.isfinite(found.positions).all()
    assert found.preservation.share is not None and found.preservation.chance is not None
    assert found.preservation.share > 1.5 * found.preservation.chance
    assert found.parameters["components"] == 50
    assert found.versions[{"tsne": "openTSNE", "umap": "umap-learn"}[method]]
    assert steps[-1][1] == steps[-1][2]
    assert any(what in ("t-SNE", "UMAP") for what, _, _ in steps)


@pytest.mark.parametrize(("method", "package"), [("tsne", "openTSNE"), ("umap", "umap")])
def test_a_missing_package_names_the_extra(
    demo_run: Path, method: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=r'pip install "hallutrace\[projections\]"'):
        project(hallutrace.open(demo_run), method)


def test_the_command_makes_a_projection_once(own_run: Path, command: Command) -> None:
    code, out, errors = command("project", own_run, "--layer", 1, "--json")
    made = json.loads(out)
    assert (code, made["made"], made["traces"]) == (0, True, 60), errors
    content = Path(made["file"]).read_bytes()
    code, out, _ = command("project", own_run, "--layer", 1, "--json")
    assert (code, json.loads(out)) == (0, {**made, "made": False})
    Path(made["file"]).write_bytes(content[:-1])
    code, out, errors = command("project", own_run, "--layer", 1)
    assert code == 0 and "Warning: Expected a projection" in errors
    assert "nearest neighbours kept" in out
    assert Path(made["file"]).read_bytes() == content


def test_the_command_tells_mistakes_in_a_line(own_run: Path, command: Command) -> None:
    for options in (("--method", "mds"), ("--layer", 9), ("--token", "nobody")):
        code, _, errors = command("project", own_run, *options)
        assert code == 2 and errors.startswith("Error: Expected"), errors
        assert "Traceback" not in errors
