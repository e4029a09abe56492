"""The payload of the map: places that are those of the projection, and what is missing."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hallutrace
from detect_runs import Made, causal_attention, write_run
from hallutrace.errors import InputError, NotInRunError
from hallutrace.viewer.data import map as map_view
from hallutrace.viewer.payload import unpack
from hallutrace.viewer.projections import files
from hallutrace.viewer.projections.projection import project
from hallutrace.viewer.providers import payload_of
from hallutrace.viewer.viewed_run import ViewedRun


def dequantised(found: dict[str, Any]) -> np.ndarray:
    """Positions as a page reads them, float64 [traces, 2]."""
    x0, x1, y0, y1 = found["range"]
    return np.stack(
        [
            x0 + found["x"] / 65535 * (x1 - x0),
            y0 + found["y"] / 65535 * (y1 - y0),
        ],
        axis=1,
    )


def test_a_pca_is_made_when_it_is_asked_for(demo_run: Path) -> None:
    store = hallutrace.open(demo_run)
    parameters = {"method": "pca", "layer": "2", "token": "last_prompt", "seed": "0"}
    found = unpack(payload_of(ViewedRun(store), "map", parameters))
    made = project(store, "pca", 2, "last_prompt")
    step = np.diff(made.positions, axis=0).max() / 65535 + np.ptp(made.positions) / 65535
    np.testing.assert_allclose(dequantised(found), made.positions, atol=step)
    assert found["explained"] == made.explained
    assert found["preservation"] == made.preservation.to_json()
    assert found["stored"] is False


def test_a_stored_projection_is_shown(demo_run: Path, tmp_path: Path) -> None:
    store = hallutrace.open(shutil.copytree(demo_run, tmp_path / "own"))
    made = project(store, "pca", 1, seed=4)
    files.write(store, made)
    viewed = ViewedRun(store)
    chosen = {"method": "pca", "layer": 1, "token": "last_answer", "seed": 4}
    assert map_view.projections_data(viewed)["stored"] == [chosen]
    texts = {name: str(value) for name, value in chosen.items()}
    assert map_view.carried_maps(viewed)[0] == texts
    found = map_view.map_data(viewed, **texts)
    assert found["stored"] is True
    assert (found["x"].min(), found["x"].max()) == (0, 65535)
    assert found["versions"] == made.versions


def test_a_stored_pca_that_is_out_of_date_is_made_again(demo_run: Path, tmp_path: Path) -> None:
    store = hallutrace.open(shutil.copytree(demo_run, tmp_path / "own"))
    made = project(store)
    older = {**made.run, "traces": 59}
    files.write(store, replace(made, positions=made.positions[:59], run=older))
    found = map_view.map_data(ViewedRun(store))
    assert (len(found["x"]), found["stored"]) == (60, False)


def test_a_report_carries_each_map_once(demo_run: Path) -> None:
    carried = map_view.carried_maps(ViewedRun(hallutrace.open(demo_run)))
    assert len({tuple(one.items()) for one in carried}) == len(carried) == 4 + 4
    assert carried[0] == {"method": "pca", "layer": "3", "token": "last_answer", "seed": "0"}


def test_labels_are_those_of_the_run(demo_run: Path) -> None:
    viewed = ViewedRun(hallutrace.open(demo_run))
    found = unpack(payload_of(viewed, "projections", {}))["labels"]
    np.testing.assert_array_equal(found["contains"], viewed.label_values("contains"))


def test_a_method_that_is_not_stored_names_its_command(demo_run: Path) -> None:
    with pytest.raises(NotInRunError, match=r"hallutrace project .* --method tsne --layer 3"):
        map_view.map_data(ViewedRun(hallutrace.open(demo_run)), method="tsne")


@pytest.mark.parametrize(
    ("parameters", "told"),
    [
        ({"layer": "../../etc"}, "Expected a whole number as `layer`"),
        ({"layer": "7"}, "Expected a layer with hidden states"),
        ({"token": "../x"}, "Expected a token with hidden states"),
        ({"method": "../x"}, "Expected one of the methods"),
        ({"seed": "-1"}, "Expected a whole number as `seed`"),
        ({"seed": "9" * 30}, "Expected a whole number as `seed`"),
    ],
)
def test_what_a_client_sends_is_checked(
    demo_run: Path, parameters: dict[str, str], told: str
) -> None:
    with pytest.raises(InputError, match=told):
        payload_of(ViewedRun(hallutrace.open(demo_run)), "map", parameters)


def test_a_large_run_wants_the_command(demo_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(map_view, "ON_THE_FLY", 59)
    viewed = ViewedRun(hallutrace.open(demo_run))
    assert map_view.projections_data(viewed)["pca"] is False
    assert map_view.carried_maps(viewed) == []
    with pytest.raises(NotInRunError, match=r"hallutrace project .* --method pca"):
        map_view.map_data(viewed)


def test_a_run_without_hidden_states_has_a_sentence(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    run = write_run(tmp_path / "run", [Made(causal_attention((1, 2, 9), rng), prompt=5)])
    viewed = ViewedRun(hallutrace.open(run))
    assert "hallutrace extract --hidden-states" in map_view.projections_data(viewed)["missing"]
    assert map_view.carried_maps(viewed) == []


def test_a_single_trace_is_in_the_middle(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    made = Made(causal_attention((1, 2, 9), rng), prompt=5, hidden=rng.normal(size=(1, 5, 4)))
    run = write_run(tmp_path / "run", [made], states="answer")
    found = map_view.map_data(ViewedRun(hallutrace.open(run)))
    assert found["x"].tolist() == found["y"].tolist() == [32767]
    assert found["preservation"]["share"] is None
