"""One trace as data: edges, dropped mass, marginals, texts and risk, against plain numpy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hallutrace
from detect_runs import Made, causal_attention, write_run
from hallutrace import ExtractConfig, extract
from hallutrace.detect import Examples, make
from hallutrace.errors import InputError, NotInRunError
from hallutrace.viewer.data.attention import attention_data, attention_parameters
from hallutrace.viewer.data.trace import TEXT, TOKEN, edges_control, trace_data
from hallutrace.viewer.data.trace_marginals import layer_means, token_heads_data
from hallutrace.viewer.data.trace_parts import trace_parts
from hallutrace.viewer.payload import unpack
from hallutrace.viewer.providers import payload_of
from hallutrace.viewer.token_texts import texts_of
from hallutrace.viewer.viewed_run import ViewedRun
from oracle import edges as plain_edges
from tiny_tokenizers import of_bytes

TOKENS, PROMPT, TOP_K = 14, 9, 4


def made_up(seed: int = 0, mass: float = 1.0, **changes: Any) -> Made:
    """Two layers of three heads; ``mass``: what the rows sum to, less than 1 with a sink."""
    rng = np.random.default_rng(seed)
    attention = causal_attention((2, 3, TOKENS), rng, 2.0) * np.float32(mass)
    return Made(attention, PROMPT, **changes)


def viewed_run(folder: Path, *traces: Made, **options: Any) -> ViewedRun:
    return ViewedRun(hallutrace.open(write_run(folder, traces, **options)))


def kept_of(row: np.ndarray) -> float:
    """Sum of the largest weights of a row, as they are stored."""
    return float(np.sort(row)[::-1][:TOP_K].astype(np.float16).astype(np.float64).sum())


@pytest.mark.parametrize("combine", ["mean", "each"])
def test_edges_and_dropped_mass_are_those_of_the_dense_attention(
    combine: str, tmp_path: Path
) -> None:
    made = made_up()
    viewed = viewed_run(tmp_path / "run", made, combine=combine)
    for layer, dense in enumerate(made.attention):
        graphs = dense if combine == "each" else dense.mean(axis=0, keepdims=True)
        for head, graph in enumerate(graphs):
            at = {"layer": str(layer)} | ({"head": str(head)} if combine == "each" else {})
            found = unpack(payload_of(viewed, "attention", at))
            wanted = plain_edges(
                graph[None].astype(np.float64), top_k=TOP_K, min_weight=0, top_mass=None,
                heads="each", causal=True, first_query=0,
            )  # fmt: skip
            np.testing.assert_array_equal(found["indptr"], wanted[0])
            np.testing.assert_array_equal(found["keys"], wanted[1])
            assert found["weights"].dtype == np.float16 and found["keys"].dtype == np.uint16
            np.testing.assert_allclose(found["weights"], wanted[2], rtol=1e-3)
            assert found["head"] == (head if combine == "each" else None)
            dropped = [1 - kept_of(row) for row in graph]
            np.testing.assert_allclose(found["dropped"], np.maximum(dropped, 0), atol=2e-3)


def test_dropped_mass_is_exact_to_the_stored_weights(tmp_path: Path) -> None:
    viewed = viewed_run(tmp_path / "run", made_up())
    found = attention_data(viewed, layer="1")
    bounds = zip(found["indptr"][:-1], found["indptr"][1:], strict=True)
    kept = [found["weights"][begin:end].astype(np.float64).sum() for begin, end in bounds]
    wanted = np.clip(1 - np.array(kept), 0, None).astype(np.float32)
    np.testing.assert_array_equal(found["dropped"], wanted)


def test_of_a_model_with_sinks_the_mass_of_a_row_counts(tmp_path: Path) -> None:
    made = made_up(mass=0.75)
    found = attention_data(viewed_run(tmp_path / "run", made))
    assert np.isnan(found["dropped"][: PROMPT - 1]).all()
    rows = made.attention[0].mean(axis=0)[PROMPT - 1 :]
    wanted = [0.75 - kept_of(row) for row in rows]
    np.testing.assert_allclose(found["dropped"][PROMPT - 1 :], wanted, atol=2e-3)


def test_of_the_largest_heads_it_is_not_known(tmp_path: Path) -> None:
    found = attention_data(viewed_run(tmp_path / "run", made_up(), combine="max"))
    assert np.isnan(found["dropped"]).all() and found["combine"] == "max"


def test_rows_that_were_not_kept_have_none(tmp_path: Path) -> None:
    config = ExtractConfig(
        model="demo", questions="demo:1", out=tmp_path / "run", edge_rows="answer", device="cpu"
    )
    extract(config)
    viewed = ViewedRun(hallutrace.open(tmp_path / "run"))
    found, prompt = attention_data(viewed), viewed.store[0].prompt_length
    assert found["rows_from"] == prompt - 1
    assert np.isnan(found["dropped"][: prompt - 1]).all()
    assert np.isfinite(found["dropped"][prompt - 1 :]).all()


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"layer": "7"}, "Expected a layer with captured attention"),
        ({"layer": "x"}, "Expected a number as layer, got 'x'"),
        ({"head": "3"}, "Expected a head in 0..2 of layer 0, got 3"),
    ],
)
def test_what_is_not_there_is_refused(asked: dict[str, str], told: str, tmp_path: Path) -> None:
    viewed = viewed_run(tmp_path / "run", made_up(), combine="each")
    with pytest.raises(InputError, match=told):
        attention_data(viewed, **asked)


def test_a_page_carries_every_graph_of_a_trace(tmp_path: Path) -> None:
    each = viewed_run(tmp_path / "each", made_up(), combine="each")
    assert len(list(attention_parameters(each.store[0], "q0"))) == 6
    mean = viewed_run(tmp_path / "mean", made_up())
    asked = [name for name, _ in trace_parts(mean, "q0")]
    assert asked.count("attention") == 2 and asked.count("token_heads") == 8
    assert "attention" not in [name for name, _ in trace_parts(mean, "q0", edges=False)]


def test_means_over_heads_leave_out_what_pads(demo_run: Path) -> None:
    viewed = ViewedRun(hallutrace.open(demo_run))
    trace = viewed.store[3]
    found = trace_data(viewed, trace=viewed.key_texts[3])
    for name, stored in (("received", "received_mean"), ("entropy", "entropy")):
        wanted = getattr(trace.marginals, stored).mean(axis=1)
        np.testing.assert_allclose(found["means"][name], wanted, rtol=2e-3, atol=1e-6)
    mass = trace.marginals.mass
    for segment in range(mass.shape[-1]):
        np.testing.assert_allclose(
            found["means"][f"mass_{segment}"], mass[..., segment].mean(axis=1), rtol=2e-3, atol=1e-6
        )
    # A layer of fewer heads is padded with zeros, which are no heads.
    facts = {**trace.manifest.facts, "heads": [8, 8, 4, 8]}
    object.__setattr__(trace, "_manifest", type(trace.manifest)(trace.manifest.identity, facts))
    wanted = trace.marginals.entropy[2, :4].mean(axis=0)
    np.testing.assert_allclose(layer_means(trace, "entropy")[2], wanted, rtol=2e-3)


def test_all_heads_of_one_marginal(demo_run: Path) -> None:
    viewed = ViewedRun(hallutrace.open(demo_run))
    trace = viewed.store[0]
    found = unpack(payload_of(viewed, "token_heads", {"marginal": "mass_1"}))
    np.testing.assert_array_equal(found["values"], trace.stored("marginals.mass")[..., 1])
    assert found["title"] == "attention to: prompt" and found["heads"] == [8] * 4
    with pytest.raises(NotInRunError, match=r"Expected one of received, .*, got 'colour'"):
        token_heads_data(viewed, marginal="colour")


def test_tokens_and_alternatives_are_those_of_the_trace(demo_run: Path) -> None:
    viewed = ViewedRun(hallutrace.open(demo_run))
    key = viewed.key_texts[5]
    found, trace = unpack(payload_of(viewed, "trace", {"trace": key})), viewed.trace(key)
    assert viewed.texts_of is not None
    texts = [found["tokens"]["texts"][at] for at in found["tokens"]["at"]]
    assert "".join(texts[: trace.prompt_length]) == trace.prompt
    np.testing.assert_array_equal(found["tokens"]["ids"], trace.tokens)
    places = found["alternatives"]["token"]
    wanted = viewed.texts_of(trace.alternatives.tokens.ravel().tolist())
    assert [found["tokens"]["texts"][at] for at in places.ravel()] == wanted
    np.testing.assert_array_equal(found["alternatives"]["logprob"], trace.alternatives.logprobs)
    np.testing.assert_array_equal(found["logprob"], trace.logprob)
    assert (found["previous"], found["next"]) == (viewed.key_texts[4], viewed.key_texts[6])
    assert found["labels"] == {"contains": int(viewed.label_values("contains")[5])}
    assert found["count"] == 60 and found["risk"] is None and found["edges_control"] == []


def test_a_run_without_tokenizer_labels_or_hidden_states_shows_what_it_can(tmp_path: Path) -> None:
    viewed = viewed_run(tmp_path / "run", made_up())
    for file in (tmp_path / "run" / "labels").iterdir():
        file.unlink()
    found = trace_data(viewed)
    assert not found["tokens"]["are_known"] and found["tokens"]["texts"][:2] == ["#0", "#1"]
    assert found["labels"] == {} and found["alternatives"] is None and found["scores"] == {}


def test_bytes_and_what_cannot_be_seen_are_written_out(tmp_path: Path) -> None:
    tokenizer = of_bytes()
    tokenizer.backend_tokenizer.save(str(tmp_path / "tokenizer.json"))
    viewed = viewed_run(tmp_path / "run", made_up())
    known = texts_of(str(tmp_path))
    assert known is not None
    ids = tokenizer("aé\u202e😀")["input_ids"]
    viewed.__dict__["texts_of"] = lambda asked: known(ids[one] for one in asked if one < len(ids))
    found = trace_data(viewed)["tokens"]["texts"]
    assert found[: len(ids)] == ["a", *(rf"\x{one:02x}" for one in "é\u202e😀".encode())]
    viewed.__dict__["texts_of"] = lambda asked: ["\u202e\x1b[31m", "x" * (1 << 20)]
    found = trace_data(viewed)["tokens"]["texts"]
    assert found == [r"\u202e\x1b[31m", "x" * (TOKEN - 1) + "…"]


def test_a_megabyte_of_one_word_is_cut_and_says_so(tmp_path: Path) -> None:
    viewed = viewed_run(tmp_path / "run", made_up(question="word" * (1 << 18)))
    found = trace_data(viewed)["texts"]["question"]
    assert len(found["text"]) == TEXT and found["length"] == 1 << 20
    assert len(payload_of(viewed, "trace", {})) < 20_000


def test_labels_are_read_again_when_they_change(tmp_path: Path) -> None:
    viewed = viewed_run(tmp_path / "run", made_up(label=0), made_up(1, label=1))
    assert viewed.label_values("contains").tolist() == [0, 1]
    path = tmp_path / "run" / "labels" / "contains.jsonl"
    path.write_text(path.read_text().replace('"label": 1', '"label": null'))
    assert viewed.label_values("contains").tolist() == [0, -1]


def test_damaged_labels_are_a_word_and_no_end(tmp_path: Path) -> None:
    viewed = viewed_run(tmp_path / "run", made_up())
    (tmp_path / "run" / "labels" / "contains.jsonl").write_text("{")
    found = trace_data(viewed)
    assert found["labels"] == {} and "contains.jsonl" in found["labels_problem"]


def test_scores_are_means_over_seeds(demo_run: Path, demo_evaluation: Path) -> None:
    viewed = ViewedRun(hallutrace.open(demo_run), demo_evaluation)
    found = trace_data(viewed, trace=viewed.key_texts[7])
    traces = unpack(payload_of(viewed, "traces", {}))
    assert found["scores"].keys() == traces["scores"].keys() and found["scores_problem"] is None
    for name, values in traces["scores"].items():
        np.testing.assert_allclose(found["scores"][name], values[7], rtol=1e-6)
    tests = viewed.evaluation_json["against_edges"]
    shuffled = [one for one in tests if one["other"].endswith("edges=shuffled")]
    control = edges_control(viewed)
    assert [(one["model"], one["difference"], one["p"]) for one in control] == [
        (one["one"], one["value"], one["p_corrected"]) for one in shuffled
    ]


def test_scores_of_another_run_are_a_word_and_no_end(demo_evaluation: Path, tmp_path: Path) -> None:
    other = viewed_run(tmp_path / "run", made_up())
    found = trace_data(ViewedRun(other.store, demo_evaluation))
    assert found["scores"] == {} and "Expected an evaluation of the run" in found["scores_problem"]


def test_risk_is_that_of_the_saved_detector(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    traces = [
        made_up(at, label=at % 2, hidden=rng.normal(size=(2, TOKENS - PROMPT + 1, 4)) + at % 2)
        for at in range(40)
    ]
    viewed = viewed_run(tmp_path / "run", *traces, states="answer")
    labels = np.array([one.label for one in traces], np.int8)
    examples = Examples(viewed.store, np.arange(40), labels)
    detector = make("linear-probe")
    detector.fit(examples.take(np.arange(30)), examples.take(np.arange(30, 40)))
    detector.save(tmp_path / "detector")
    found = trace_data(ViewedRun(viewed.store, detector=tmp_path / "detector"), trace="q31")["risk"]
    assert found["name"] == "linear-probe" and found["problem"] is None
    assert found["score"] == pytest.approx(detector.score(viewed.store[31]))
    np.testing.assert_allclose(
        found["tokens"], detector.token_scores(viewed.store[31]), rtol=1e-5, atol=1e-6
    )
    # A run without hidden states says why there is no risk, and shows the rest.
    plain = viewed_run(tmp_path / "plain", made_up())
    found = trace_data(ViewedRun(plain.store, detector=tmp_path / "detector"))
    assert "hidden states" in found["risk"]["problem"] and found["risk"]["tokens"] is None
    missing = trace_data(ViewedRun(plain.store, detector=tmp_path / "nowhere"))["risk"]
    assert "`hallutrace train` makes one" in missing["problem"]


def test_a_run_without_such_a_trace(demo_run: Path) -> None:
    viewed = ViewedRun(hallutrace.open(demo_run))
    with pytest.raises(NotInRunError, match=r"of this run, such as '.+', got 'x'"):
        trace_data(viewed, trace="x")
