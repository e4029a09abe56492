"""Detectors on the disk, the examples they learn from, and their names."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file
from test_detect_linear import hidden, parts  # noqa: F401 - the fixture is used by its name

import hallutrace
from detect_runs import Made, causal_attention, write_run
from hallutrace.detect import Detector, Examples, load, load_examples, make, names
from hallutrace.errors import DamagedError, InputError, MissingExtraError

OURS = [
    "length", "question-only", "perplexity", "min-logprob", "token-entropy", "scalars",
    "attention-score", "rauq", "rauq-code", "lookback-lens", "lapeigvals", "attneigvals",
    "sinkprobe", "sinkprobe-later", "linear-probe",
]  # fmt: skip
OPTIONS: dict[str, dict[str, Any]] = {
    "rauq": {"alpha": 0.5},
    "lapeigvals": {"top_k": 3},
    "linear-probe": {"token": "last_prompt"},
    "attention-score": {"layer": 1, "tokens": "all", "sign": 1},
}


def fitted(name: str, examples: Examples) -> Detector:
    train, validation, _ = parts(examples)
    detector = make(name, seed=3, **OPTIONS.get(name, {}))
    detector.fit(train, validation)
    return detector


# Saving and loading -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", OURS)
def test_a_detector_comes_back_as_it_was(
    name: str,
    hidden: Examples,  # noqa: F811
    tmp_path: Path,
) -> None:
    before = fitted(name, hidden)
    before.save(tmp_path / "detector")
    after = load(tmp_path / "detector")
    assert type(after) is type(before)
    assert (after.name, after.seed, after.options) == (name, 3, before.options)
    test = parts(hidden)[2]
    assert after.scores(test).tobytes() == before.scores(test).tobytes()
    assert [after.score(trace) for trace in test[:5]] == [before.score(trace) for trace in test[:5]]
    tokens = [detector.token_scores(test[0]) for detector in (before, after)]
    assert tokens[0] is None or np.array_equal(tokens[0], tokens[1])  # type: ignore[arg-type]
    after.save(tmp_path / "again")
    for file in ("detector.json", "detector.safetensors"):
        assert (tmp_path / "again" / file).read_bytes() == (
            tmp_path / "detector" / file
        ).read_bytes()
    assert sorted(path.name for path in (tmp_path / "detector").iterdir()) == [
        "detector.json",
        "detector.safetensors",
    ]


@pytest.fixture
def saved(hidden: Examples, tmp_path: Path) -> Path:  # noqa: F811
    fitted("lapeigvals", hidden).save(tmp_path / "detector")
    return tmp_path / "detector"


def test_any_reader_opens_the_arrays(saved: Path) -> None:
    arrays = load_file(saved / "detector.safetensors")
    assert {name: array.shape for name, array in arrays.items()} == {"weight": (18,), "bias": (1,)}


def test_saving_replaces_a_detector(saved: Path, hidden: Examples) -> None:  # noqa: F811
    fitted("scalars", hidden).save(saved)
    assert load(saved).name == "scalars"


def test_a_kill_between_the_two_files_loses_nothing(
    saved: Path,
    hidden: Examples,  # noqa: F811
    tmp_path: Path,
) -> None:
    fitted("scalars", hidden).save(tmp_path / "newer")
    for file in ("detector.json", "detector.safetensors"):
        (saved / f"{file}.new").write_bytes((tmp_path / "newer" / file).read_bytes())
    assert load(saved).name == "lapeigvals"
    (saved / "detector.safetensors.new").replace(saved / "detector.safetensors")
    assert load(saved).name == "scalars"
    (saved / "detector.json.new").replace(saved / "detector.json")
    assert load(saved).name == "scalars"


def test_a_folder_without_a_detector_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        load(tmp_path)
    assert str(caught.value) == (
        f"Expected a detector in {tmp_path} (detector.json and detector.safetensors), got none - "
        "give the folder that `hallutrace train` wrote"
    )


def test_flipped_and_cut_files_are_damage(saved: Path) -> None:
    arrays = saved / "detector.safetensors"
    content = arrays.read_bytes()
    for wrong in (content[:-1] + bytes([content[-1] ^ 1]), content[:-8], b""):
        arrays.write_bytes(wrong)
        with pytest.raises(DamagedError, match=r"got detector.safetensors with another checksum"):
            load(saved)
    arrays.write_bytes(content)
    for wrong in (b"{", b"\xff\xfe", b"[]", b'{"name": "scalars"}'):
        (saved / "detector.json").write_bytes(wrong)
        with pytest.raises(DamagedError, match="Expected a detector as it was written, got "):
            load(saved)


def rewrite(saved: Path, **changes: Any) -> None:
    path = saved / "detector.json"
    path.write_text(json.dumps(json.loads(path.read_bytes()) | changes))


def test_what_another_version_wrote_is_refused(saved: Path) -> None:
    rewrite(saved, schema=2)
    with pytest.raises(InputError, match=r"Expected a detector of schema 1, got schema 2 in"):
        load(saved)
    rewrite(saved, schema=1, name="crystal-ball")
    with pytest.raises(InputError, match=r"known here, got `crystal-ball` in .*which this"):
        load(saved)


def test_facts_of_another_detector_are_damage(saved: Path) -> None:
    for name in ("linear-probe", "question-only", "length"):
        rewrite(saved, name=name, options={})
        with pytest.raises(DamagedError):
            load(saved)
    rewrite(saved, name="lapeigvals", facts={})
    with pytest.raises(DamagedError, match="got KeyError 'recipe' in"):
        load(saved)
    rewrite(saved, name="lapeigvals", facts=[])
    with pytest.raises(DamagedError, match="got no facts in"):
        load(saved)


# Names and options --------------------------------------------------------------------------------


def test_names_are_in_the_order_of_tables() -> None:
    assert [name for name in names() if name in OURS] == OURS
    for name in OURS:
        detector = make(name)
        assert detector.name == name
        assert type(detector).__doc__
        assert "Source" in str(type(detector).__doc__)
        again = json.loads(json.dumps(detector.options.to_json()))
        assert make(name, **again).options == detector.options


def test_an_unknown_name_or_option_is_refused() -> None:
    with pytest.raises(InputError, match=r"Expected a detector \(length, question-only, .*'rauk'"):
        make("rauk")
    with pytest.raises(InputError) as caught:
        make("rauq", beta=1)
    assert str(caught.value) == (
        "Expected options of `rauq` (one of alpha), got beta - leave out what it does not know"
    )
    with pytest.raises(InputError, match=r"`length` \(none, for it has none\), got top_k - "):
        make("length", top_k=1)


@pytest.mark.parametrize(
    ("name", "option", "value"),
    [
        ("rauq", "alpha", 1.5),
        ("lapeigvals", "top_k", 0),
        ("lapeigvals", "C", -1),
        ("lapeigvals", "components", True),
        ("lookback-lens", "standardize", "yes"),
        ("question-only", "C", 0),
        ("question-only", "min_questions", 0.5),
        ("attention-score", "layer", -1),
        ("attention-score", "tokens", "some"),
        ("attention-score", "sign", 0),
        ("linear-probe", "token", "first"),
        ("linear-probe", "layers", []),
    ],
)
def test_values_that_mean_nothing_are_refused(name: str, option: str, value: Any) -> None:
    said = f"Expected `{option}` of `{name}` .*, got {re.escape(repr(value))} - "
    with pytest.raises(InputError, match=said):
        make(name, **{option: value})


def test_a_missing_package_names_the_extra(
    hidden: Examples,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError) as caught:
        make("lapeigvals").check(hidden.store)
    assert str(caught.value) == (
        "Expected the package `sklearn` for the detector `lapeigvals`, got no such package - "
        'pip install "hallutrace[detect]"'
    )
    make("rauq").check(hidden.store)


def test_importing_and_naming_needs_numpy_alone() -> None:
    heavy = ["torch", "sklearn", "scipy", "transformers", "torch_geometric", "safetensors"]
    code = (
        "import sys, hallutrace.detect as detect; detect.names(); detect.make('lapeigvals'); "
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# Examples -----------------------------------------------------------------------------------------


def labelled(folder: Path, labels: list[int | None]) -> Any:
    attention = causal_attention((1, 2, 8), np.random.default_rng(0))
    made = [Made(attention, 4, label, group=f"g{at // 2}") for at, label in enumerate(labels)]
    return hallutrace.open(write_run(folder, made))


def test_examples_are_the_traces_with_a_label(tmp_path: Path) -> None:
    store = labelled(tmp_path / "run", [1, None, 0, 0, 1])
    examples = load_examples(store, "contains")
    assert examples.labels.tolist() == [1, 0, 0, 1]
    assert examples.keys == [("q0", 0), ("q2", 0), ("q3", 0), ("q4", 0)]
    assert examples.groups == ["g0", "g1", "g1", "g2"]
    assert [trace.id for trace in examples] == ["q0", "q2", "q3", "q4"]
    assert examples[-1].id == "q4"
    chosen = examples.take([2, 0])
    assert (chosen.keys, chosen.labels.tolist()) == ([("q3", 0), ("q0", 0)], [0, 1])
    assert chosen.cache is examples.cache
    assert examples.take(examples.labels == 1).keys == [("q0", 0), ("q4", 0)]
    assert len(examples.take([])) == 0
    assert examples[1:3].keys == [("q2", 0), ("q3", 0)]
    assert load_examples(store, "contains", limit=2).keys == [("q0", 0), ("q2", 0)]


def test_features_are_computed_once_a_trace(tmp_path: Path) -> None:
    examples = load_examples(labelled(tmp_path / "run", [1, 0, 1, 0]), "contains")
    calls: list[str] = []

    def feature(trace: Any) -> Any:
        calls.append(trace.id)
        return np.array([trace.index, 1], np.float32)

    assert examples.take([3, 1]).features("index", feature).tolist() == [[3, 1], [1, 1]]
    assert examples.features("index", feature).tolist() == [[0, 1], [1, 1], [2, 1], [3, 1]]
    assert calls == ["q3", "q1", "q0", "q2"]
    with pytest.raises(InputError, match=r"Expected as many features `ragged` of every trace"):
        examples.features("ragged", lambda trace: np.zeros(trace.index, np.float32))


@pytest.mark.parametrize("labels", [[1, 1, None], [0, 0], [None]])
def test_labels_of_one_class_are_refused(tmp_path: Path, labels: list[int | None]) -> None:
    store = labelled(tmp_path / "run", labels)
    with pytest.raises(InputError, match="Expected hallucinated and right answers under the label"):
        load_examples(store, "contains")


def test_a_protocol_that_is_not_there_is_refused(tmp_path: Path) -> None:
    store = labelled(tmp_path / "run", [0, 1])
    with pytest.raises(InputError):
        load_examples(store, "exact")
    with pytest.raises(InputError, match="Expected `limit` >= 1 or None, got 0"):
        load_examples(store, "contains", limit=0)
