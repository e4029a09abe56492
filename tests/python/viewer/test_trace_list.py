"""The payload `traces` against what the store and the evaluation's files give."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import hallutrace
from detect_runs import Made, causal_attention, write_run
from evaluations import write_made_up
from hallutrace.errors import InputError
from hallutrace.viewer.data.trace_list import (
    ANSWER_CHARACTERS,
    UNREADABLE,
    _named,
    trace_list,
    traces_data,
)
from hallutrace.viewer.evaluations.scores import evaluation_scores
from hallutrace.viewer.payload import pack, unpack
from hallutrace.viewer.viewed_run import ViewedRun


def made_run(folder: Path, count: int = 12) -> Path:
    rng = np.random.default_rng(5)
    labels = [(0, 1, None)[number % 3] for number in range(count)]
    traces = [
        Made(
            causal_attention((2, 2, 6 + number % 3), rng),
            4,
            labels[number],
            question="who? " * 60 if number == 1 else "who was it?",
            group=f"g{9 - number // 2}",
            logprob=-rng.random(2 + number % 3),
            token_entropy=rng.random(2 + number % 3),
            eos=number != 4,
        )
        for number in range(count)
    ]
    return write_run(folder / "run", traces)


def test_columns_are_those_of_the_traces(tmp_path: Path) -> None:
    run = made_run(tmp_path)
    found = unpack(pack(traces_data(ViewedRun(hallutrace.open(run)))))
    store = hallutrace.open(run)
    groups = sorted({trace.group for trace in store})
    assert found["total"] == len(store) == 12
    assert found["groups"] == len(groups)
    for at, trace in enumerate(store):
        assert found["key"][at] == trace.id
        assert found["question"][at][:100] == trace.question[:100]
        assert found["answer"][at] == trace.answer
        assert groups[found["group"][at]] == trace.group
        assert (found["sample"][at], found["index"][at]) == (trace.sample, trace.index)
        assert found["prompt_tokens"][at] == trace.prompt_length
        assert found["answer_tokens"][at] == len(trace.answer_tokens)
        assert found["mean_logprob"][at] == np.float32(np.mean(trace.logprob, dtype=np.float64))
        assert found["min_logprob"][at] == trace.logprob.min()
        entropy = np.mean(trace.token_entropy, dtype=np.float64)
        assert found["mean_entropy"][at] == np.float32(entropy)
        assert found["finish_reasons"][found["finish_reason"][at]] == trace.finish_reason
    assert found["labels"]["contains"].tolist() == [0, 1, -1] * 4
    assert found["scores"] == {} and found["damaged"] == []
    assert len(found["question"][1]) < 200 and found["question"][1].endswith("…")
    dtypes = {name: one.dtype.name for name, one in found.items() if isinstance(one, np.ndarray)}
    assert dtypes.pop("finish_reason") == "uint8"
    assert {dtypes.pop(f"{name}") for name in ("mean_logprob", "min_logprob", "mean_entropy")} == {
        "float32"
    }
    assert set(dtypes.values()) == {"uint32"}


def test_a_part_is_the_rows_asked_for(tmp_path: Path) -> None:
    viewed = ViewedRun(hallutrace.open(made_run(tmp_path)))
    whole, part = traces_data(viewed), trace_list(viewed, [7, 2])
    assert part["position"].tolist() == [7, 2]
    assert part["total"] == 12
    for name, column in part.items():
        if isinstance(column, np.ndarray):
            np.testing.assert_array_equal(column, whole[name][[7, 2]])
    assert part["key"] == ["q7", "q2"]
    assert part["labels"]["contains"].tolist() == whole["labels"]["contains"][[7, 2]].tolist()


def test_scores_are_means_over_seeds(tmp_path: Path) -> None:
    run = made_run(tmp_path)
    rng = np.random.default_rng(0)
    columns = {name: rng.normal(size=12) for name in ("a", "g x=1 seed=0", "g x=1 seed=1")}
    evaluation = write_made_up(tmp_path / "evaluation", run, columns)
    viewed = ViewedRun(hallutrace.open(run), evaluation)
    found = traces_data(viewed)["scores"]
    decided = np.array([0, 1, -1] * 4) >= 0
    for name, expected in (
        ("a", columns["a"]),
        ("g x=1", (columns["g x=1 seed=0"] + columns["g x=1 seed=1"]) / 2),
    ):
        np.testing.assert_array_equal(found[name][decided], expected[decided].astype(np.float32))
        assert np.isnan(found[name][~decided]).all()
        assert found[name].dtype == np.float32
    scores = evaluation_scores(viewed)
    assert scores.series["g x=1"].shape == (2, 12)
    assert scores.labels.tolist() == [0, 1, -1] * 4
    assert scores.folds.tolist() == [at % 5 if at % 3 < 2 else -1 for at in range(12)]


def test_an_evaluation_of_another_run_is_refused(tmp_path: Path) -> None:
    run = made_run(tmp_path)
    evaluation = write_made_up(tmp_path / "evaluation", run, {"a": np.zeros(12)})
    viewed = ViewedRun(hallutrace.open(run), evaluation)
    file = evaluation / "scores.csv"
    file.write_text(file.read_text().replace("q4,", "other,"))
    with pytest.raises(InputError, match="got 1 of other traces in"):
        evaluation_scores(viewed)
    content = json.loads((evaluation / "evaluation.json").read_text())
    content["run"]["fingerprint"] = "0" * 16
    (evaluation / "evaluation.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"Expected an evaluation of the run .* got one of 'run'"):
        evaluation_scores(ViewedRun(hallutrace.open(run), evaluation))


def test_a_damaged_trace_is_named_and_the_others_are_shown(tmp_path: Path) -> None:
    run = made_run(tmp_path)
    whole = traces_data(ViewedRun(hallutrace.open(run)))
    damaged = shutil.copytree(run, tmp_path / "damaged")
    (shard,) = (damaged / "shards").glob("*.safetensors")
    content = shard.read_bytes()
    at = content.index(b'"id":"q5"')
    shard.write_bytes(content[:at] + b'"id":"q6"' + content[at + 9 :])
    found = traces_data(ViewedRun(hallutrace.open(damaged)))
    assert [one["key"] for one in found["damaged"]] == ["q5"]
    assert "Expected" in found["damaged"][0]["message"]
    others = np.arange(12) != 5
    assert np.isnan(found["mean_logprob"][5]) and found["answer_tokens"][5] == 0
    assert found["finish_reasons"][found["finish_reason"][5]] == UNREADABLE
    np.testing.assert_array_equal(
        found["mean_logprob"][others], whole["mean_logprob"][others], strict=True
    )


def test_a_run_without_labels_or_traces(tmp_path: Path) -> None:
    run = made_run(tmp_path)
    shutil.rmtree(run / "labels")
    assert traces_data(ViewedRun(hallutrace.open(run)))["labels"] == {}
    for record in (run / "shards").iterdir():
        record.unlink()
    found = unpack(pack(traces_data(ViewedRun(hallutrace.open(run)))))
    assert found["total"] == 0 and found["key"] == [] and len(found["mean_logprob"]) == 0
    assert found["finish_reasons"] == []


def test_long_texts_are_cut_and_kinds_fit_a_byte() -> None:
    names, index = _named([str(number) for number in range(300)])
    assert len(names) == 256 and names[-1] == "other" and index.max() == 255
    assert ANSWER_CHARACTERS < 300
