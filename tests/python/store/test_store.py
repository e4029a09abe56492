"""Reading runs: the right trace for every key, the right numbers, and damage that is told."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import hallutrace
import oracle
from conftest import RUN_OPTIONS, eager_attention, eager_forward, question_rows, write_lines
from hallutrace import ExtractConfig, extract
from hallutrace._core import Shard, ShardWriter
from hallutrace.canonical_json import canonical
from hallutrace.capture.replay import Replayed
from hallutrace.errors import DamagedError, InputError, NotARunError
from hallutrace.extraction import trace_arrays
from hallutrace.extraction.trace_arrays import HiddenChoice
from hallutrace.model.loading import Loaded, load
from hallutrace.store.finite_numbers import count_not_finite
from hallutrace.store.folder import CommitRecord, Run
from hallutrace.store.reader import OPEN_SHARDS, TraceStore
from hallutrace.store.shard_traces import ShardTraces
from hallutrace.store.tensor_names import FLOATS, INTEGERS
from hallutrace.store.trace import MEMBERS, Trace
from hallutrace.store.verify import verify_run
from made_shards import begin_shard, finish_shard, made_up_scores
from tiny_models import EOS, save_tiny

Make = Callable[..., Path]

# What each trace of these runs has; none keeps hidden states as int8, which have a scale.
TENSORS = [name for name in (*FLOATS, *INTEGERS) if name != "hidden.scale"]


@pytest.fixture(scope="session")
def make(tmp_path_factory: pytest.TempPathFactory) -> Make:
    """Runs of seven questions, each extracted once; nobody may change them."""
    base = tmp_path_factory.mktemp("runs")
    rows = question_rows(7)
    rows[1] |= {"context": "It was the ox.", "group": "animals", "answers": ["ox", "an ox"]}
    questions = write_lines(base / "seven.jsonl", rows)

    @cache
    def extracted(architecture: str, options: str) -> Path:
        number = len(list(base.iterdir()))
        model = base / architecture
        if not model.exists():
            save_tiny(model, architecture)
        chosen = {"model": str(model), "questions": str(questions), "out": base / f"run{number}"}
        return extract(
            ExtractConfig.from_options(chosen | RUN_OPTIONS | json.loads(options))
        ).folder

    return lambda architecture="qwen3", **options: extracted(architecture, json.dumps(options))


@cache
def model_of(run: Path) -> Loaded:
    return load(ExtractConfig(model=Run(run).manifest().identity["model"]["name"]))


@pytest.fixture
def run(make: Make) -> Path:
    return make()


@pytest.fixture
def copy(run: Path, tmp_path: Path) -> Path:
    """A run that may be damaged."""
    return Path(shutil.copytree(run, tmp_path / "copy"))


# A sequence -------------------------------------------------------------------------------------


def test_a_store_is_a_sequence_in_the_sources_order(run: Path) -> None:
    store = hallutrace.open(run)
    ids = [f"q{at}" for at in range(7)]
    assert len(store) == 7
    assert [trace.id for trace in store] == ids
    assert [store[at].id for at in range(7)] == ids
    assert [store[at].id for at in range(-7, 0)] == ids
    assert [trace.id for trace in store[1:6:2]] == ids[1:6:2]
    assert [trace.id for trace in store[::-1]] == ids[::-1]
    assert store[10:] == []
    assert store[np.int64(3)].id == store[np.int32(-4)].id == "q3"
    assert [trace.id for trace in reversed(store)] == ids[::-1]


def test_a_store_is_also_a_mapping(make: Make) -> None:
    store = hallutrace.open(make(samples=2, temperature=1.0))
    assert len(store) == 14
    assert (store["q3"].id, store["q3"].sample) == ("q3", 0)
    assert (store["q3", 1].id, store["q3", 1].sample) == ("q3", 1)
    assert store[7].meta == store["q3", 1].meta
    with pytest.raises(KeyError) as missing:
        store["q3", 2]
    assert missing.value.args == (
        f"no trace of question 'q3', sample 2, in {store.info()['folder']}",
    )
    with pytest.raises(KeyError):
        store["q7"]


@pytest.mark.parametrize("place", [7, -8, 1000])
def test_places_outside_are_refused(run: Path, place: int) -> None:
    with pytest.raises(IndexError) as raised:
        hallutrace.open(run)[place]
    assert raised.value.args == (f"Expected a trace in 0..7, got {place}",)


def test_shards_are_sequences_too(run: Path) -> None:
    store = hallutrace.open(str(run))
    assert [len(shard) for shard in store.shards()] == [3, 3, 1]
    shard = store.shard(1)
    assert [trace.id for trace in shard] == ["q3", "q4", "q5"]
    assert (shard[-1].id, [trace.id for trace in shard[:2]]) == ("q5", ["q3", "q4"])
    assert shard.record.name == "00001"
    for part in store.shards():
        part.verify()
    with pytest.raises(InputError) as raised:
        store.shard(3)
    assert str(raised.value) == "Expected a shard in 0..3, got 3"


def test_info_and_labels(copy: Path) -> None:
    store = hallutrace.open(copy)
    info = store.info()
    assert (info["folder"], info["traces"], info["shards"]) == (str(copy), 7, 3)
    assert info["bytes"] == sum(path.stat().st_size for path in copy.glob("shards/*.safetensors"))
    assert (info["counts"]["traces"], info["counts"]["judged"]) == (7, 7)
    assert info["identity"] == store.manifest.identity
    assert info["facts"]["captured_layers"] == [0, 1, 2]
    assert store.labels() == []
    for name in ("contains", "alias"):
        (copy / "labels" / f"{name}.jsonl").write_text("")
    assert store.labels() == ["alias", "contains"]
    assert (
        repr(store) == f"TraceStore({str(copy)!r}: 7 traces of {info['identity']['model']['name']})"
    )


# A trace ----------------------------------------------------------------------------------------


def test_the_members_of_a_trace(run: Path) -> None:
    trace = hallutrace.open(run)["q1"]
    assert (trace.id, trace.sample, trace.index, trace.group) == ("q1", 0, 1, "animals")
    assert trace.question == question_rows(2)[1]["question"]
    assert (trace.context, trace.references) == ("It was the ox.", ["ox", "an ox"])
    assert trace.prompt == f"It was the ox.\n\nQuestion: {trace.question}\nAnswer:"
    assert trace.prompt_length == len(trace.tokens) - len(trace.answer_tokens)
    assert trace.segments == [1, 1, trace.segments[2], trace.prompt_length]
    assert trace.finish_reason == ("eos" if trace.answer_tokens[-1] == EOS else "length")
    tokenizer = model_of(run).tokenizer
    assert tokenizer.decode(trace.tokens[1 : trace.segments[2]]) == "It was the ox."
    assert tokenizer.decode(trace.tokens[1 : trace.prompt_length]) == trace.prompt
    said = tokenizer.decode(trace.answer_tokens, skip_special_tokens=True).strip()
    assert trace.answer == said
    assert trace.layers == [0, 1, 2]
    assert repr(trace) == f"Trace('q1', sample 0, {len(trace.tokens)} tokens: {said!r})"
    other = hallutrace.open(run)["q0"]
    assert (other.context, other.group, other.segments) == (None, "q0", [1, other.prompt_length])


def test_numbers_are_those_of_a_plain_forward(run: Path) -> None:
    for trace in hallutrace.open(run):
        output = eager_forward(model_of(run), trace.tokens.tolist())
        logp = torch.log_softmax(output.logits[0, trace.prompt_length - 1 : -1], -1)
        expected = logp[range(len(logp)), trace.answer_tokens.tolist()]
        np.testing.assert_allclose(trace.logprob, expected, rtol=1e-4, atol=1e-4)
        entropy = torch.distributions.Categorical(logits=logp).entropy()
        np.testing.assert_allclose(trace.token_entropy, entropy, rtol=1e-4, atol=1e-4)
        assert trace.logprob.dtype == trace.token_entropy.dtype == np.float32
        assert trace.tokens.dtype == np.int32


def top(weights: np.ndarray, count: int) -> np.ndarray:
    """The largest weights of each row, zeros elsewhere."""
    return np.where(weights >= np.sort(weights)[..., -count, None], weights, 0)


def test_layers_are_the_heaviest_edges_of_a_plain_forward(run: Path) -> None:
    for trace in hallutrace.open(run):
        attention = eager_attention(model_of(run), trace.tokens.tolist())
        for layer, weights in zip(trace.layers, attention, strict=True):
            edges = trace.layer(layer)
            assert edges.shape == (1, len(trace.tokens), len(trace.tokens))
            expected = top(weights.mean(axis=0), 16)
            np.testing.assert_allclose(edges.to_dense()[0], expected, rtol=1e-3, atol=1e-5)
            first = trace.prompt_length - 1
            assert np.isnan(edges.retained[0, :first]).all()
            np.testing.assert_allclose(
                edges.retained[0, first:], expected[first:].sum(1), atol=5e-3
            )


@pytest.mark.parametrize("marginal_rows", ["answer", "all"])
def test_marginals_are_stored(make: Make, marginal_rows: str) -> None:
    run = make(marginal_rows=marginal_rows)
    trace = hallutrace.open(run)["q1"]
    tokens, prompt = len(trace.tokens), trace.prompt_length
    rows = slice(prompt - 1 if marginal_rows == "answer" else 0, tokens)
    weights = np.stack(eager_attention(model_of(run), trace.tokens.tolist()))
    diagonal = np.einsum("lhii->lhi", weights)
    previous = np.pad(np.einsum("lhii->lhi", weights[:, :, 1:, :-1]), ((0, 0), (0, 0), (1, 0)))
    square = (weights**2).sum(-1)
    bounds = list(pairwise([0, *trace.segments, tokens]))

    def mean_logs(values: np.ndarray) -> np.ndarray:
        logs = np.log(values)
        return np.stack([logs[..., :prompt].mean(-1), logs[..., prompt:].mean(-1)], -1)

    expected = {
        "diagonal": diagonal,
        "previous": previous[..., rows],
        "entropy": -(weights * np.log(np.maximum(weights, 1e-30))).sum(-1)[..., rows],
        "square": square[..., rows],
        "mass": np.stack([weights[..., rows, a:b].sum(-1) for a, b in bounds], -1),
        "rough": np.stack([oracle.rough(weights[..., rows, a:b]) for a, b in bounds], -1),
        "log_diagonal": mean_logs(diagonal),
        "log_square": mean_logs(square),
    }
    for name, values in expected.items():
        got = getattr(trace.marginals, name)
        assert got.dtype == np.float32
        assert got.shape == values.shape
        np.testing.assert_allclose(got, values, rtol=2e-3, atol=1e-3, err_msg=name)
    received = trace.marginals.received_mean
    assert received.shape == (3, 4, tokens)
    np.testing.assert_allclose(
        received[..., 4], weights[:, :, 5 : tokens - 1, 4].mean(-1), rtol=2e-3, atol=1e-4
    )
    assert (received[..., -2:] == 0).all()
    assert trace.marginals.value_norm.shape == (3, 2, tokens)


def test_each_head_has_its_own_edges(make: Make) -> None:
    run = make(heads="each", top_k=4, min_weight=0.05, edge_dtype="float32")
    trace = hallutrace.open(run)[2]
    for layer, weights in zip(
        trace.layers, eager_attention(model_of(run), trace.tokens.tolist()), strict=True
    ):
        edges = trace.layer(layer)
        expected = np.where(weights >= 0.05, top(weights, 4), 0)
        np.testing.assert_allclose(edges.to_dense(), expected, atol=3e-5)
        assert edges.retained.shape == weights.shape[:2]
        first = trace.prompt_length - 1
        np.testing.assert_allclose(edges.retained[:, first:], expected[:, first:].sum(2), atol=5e-3)
        np.testing.assert_allclose(edges.head(2).to_dense()[0], expected[2], atol=3e-5)


def test_the_maximum_over_heads_has_no_known_share(make: Make) -> None:
    run = make(heads="max", top_mass=0.5, top_k=None)
    trace = hallutrace.open(run)[0]
    assert np.isnan(trace.layer(1).retained).all()
    weights = eager_attention(model_of(run), trace.tokens.tolist())[1].max(axis=0)
    kept = trace.layer(1).to_dense()[0]
    assert (kept.sum(1) >= 0.499 * weights.sum(1)).all()
    np.testing.assert_allclose(kept, np.where(kept > 0, weights, 0), rtol=1e-3, atol=1e-5)


def test_edges_of_answer_rows_alone(make: Make) -> None:
    full, less = hallutrace.open(make())[3], hallutrace.open(make(edge_rows="answer"))[3]
    dense = full.layer(2).to_dense()
    dense[:, : full.prompt_length - 1] = 0
    assert np.array_equal(less.layer(2).to_dense(), dense)


def test_layers_without_captured_attention_are_refused(make: Make) -> None:
    run = make("qwen3_next")
    trace = hallutrace.open(run)[0]
    assert trace.layers == [1, 3]
    for layer, weights in zip(
        trace.layers, eager_attention(model_of(run), trace.tokens.tolist()), strict=True
    ):
        expected = top(weights.mean(axis=0), 16)
        np.testing.assert_allclose(trace.layer(layer).to_dense()[0], expected, rtol=1e-3, atol=2e-5)
    for layer in (0, 2, 4, -1):
        with pytest.raises(InputError) as raised:
            trace.layer(layer)
        assert str(raised.value) == f"Expected a layer with captured attention (1, 3), got {layer}"
    # Hidden states are kept of all layers.
    assert trace.hidden_layers == [0, 1, 2, 3]


def test_layers_with_fewer_heads_are_padded_and_read_without_padding(tmp_path: Path) -> None:
    class Layer:
        def __init__(self, heads: int) -> None:
            self.indptr = np.arange(heads * 4, dtype=np.int32).reshape(heads, 4) * 0
            self.indptr[:, 1:] = [1, 2, 3]
            self.keys = np.tile(np.array([0, 1, 2], np.int32), heads)
            self.weights = np.full(3 * heads, heads, np.float32)
            for name, shape in (
                ("log_diagonal", (2,)),
                ("log_square", (2,)),
                ("diagonal", (3,)),
                ("received_mean", (3,)),
                ("previous", (2,)),
                ("entropy", (2,)),
                ("mass", (2, 1)),
                ("square", (2,)),
                ("rough", (2, 1)),
            ):
                setattr(self, name, np.full((heads, *shape), heads, np.float32))

    layers = [Layer(2), Layer(3)]
    norms = [np.ones((1, 3), np.float32), np.ones((2, 3), np.float32)]
    score = np.zeros(1, np.float32)
    arrays = trace_arrays.arrays_of(
        Replayed(layers, norms, made_up_scores(score, score, 2), None),
        [1, 2, 3],
        False,
        HiddenChoice("none", [], "int8"),
    )
    assert arrays["edges.offset"].tolist() == [0, 3, 6, 6, 9, 12, 15]
    assert arrays["edges.indptr"].shape == (6, 4)
    assert arrays["marginals.diagonal"][:, :, 0].tolist() == [[2, 2, 0], [3, 3, 3]]
    assert arrays["marginals.value_norm"][:, :, 0].tolist() == [[1, 0], [1, 1]]

    writer, record = begin_shard(tmp_path, "00000", 1)
    meta = np.frombuffer(b'{"id":"q","sample":0}', np.uint8)
    writer.append(0, "q", 0, arrays | {"meta": meta})
    finish_shard(writer, record, ["q"])
    shard = Shard(tmp_path / "shards" / "00000.safetensors")

    class Manifest:
        facts = {"captured_layers": [4, 7], "heads": [2, 3]}  # noqa: RUF012
        identity = {"sparsification": {"heads": "each"}}  # noqa: RUF012

    trace = Trace(shard, 0, Manifest())  # type: ignore[arg-type]
    for layer, heads in ((4, 2), (7, 3)):
        edges = trace.layer(layer)
        assert edges.shape == (heads, 3, 3)
        assert np.array_equal(edges.to_dense(), np.stack([heads * np.eye(3)] * heads))
        assert np.array_equal(edges.retained, [[np.nan, 1, 1]] * heads, equal_nan=True)


# Hidden states ----------------------------------------------------------------------------------


def plain_states(run: Path, trace: Trace) -> np.ndarray:
    """[layers, tokens, width] of the model alone."""
    output = eager_forward(model_of(run), trace.tokens.tolist())
    return np.stack([states[0].float().numpy() for states in output.hidden_states[1:]])


HIDDEN_TOLERANCES = {"native": 1e-4, "float16": 1e-3, "bfloat16": 8e-3, "int8": 5e-3}


@pytest.mark.parametrize("dtype", HIDDEN_TOLERANCES)
@pytest.mark.parametrize("states", ["answer", "all", "pooled"])
def test_hidden_states_are_outputs_of_blocks(make: Make, states: str, dtype: str) -> None:
    run = make(hidden_states=states, hidden_dtype=dtype, hidden_layers="0,2")
    for trace in hallutrace.open(run)[::3]:
        plain = plain_states(run, trace)
        tokens, prompt = len(trace.tokens), trace.prompt_length
        assert trace.hidden_layers == [0, 2]
        for layer in (0, 2):
            expected = plain[layer]
            if states == "answer":
                assert trace.hidden_tokens == range(prompt - 1, tokens)
                expected = expected[prompt - 1 :]
            elif states == "all":
                assert trace.hidden_tokens == range(tokens)
            else:
                assert trace.hidden_tokens == ["last_prompt", "last_answer", "last", "mean_answer"]
                end = tokens - (trace.finish_reason == "eos")
                rows = expected[prompt - 1], expected[end - 1], expected[-1]
                mean = expected[prompt:end].mean(0) if end > prompt else rows[0]
                expected = np.stack([*rows, mean])
            got = trace.hidden(layer)
            assert got.dtype == np.float32
            slack = HIDDEN_TOLERANCES[dtype] * np.abs(expected).max()
            np.testing.assert_allclose(got, expected, rtol=HIDDEN_TOLERANCES[dtype], atol=slack)


@pytest.mark.parametrize("said", [[20, 21, 22, EOS], [20, 21], [EOS]])
def test_pooled_states_leave_the_end_out(make: Make, tmp_path: Path, said: list[int]) -> None:
    rows = [{"id": "a", "question": "who?", "response": said}]
    path = write_lines(tmp_path / "said.jsonl", rows)
    run = make(responses=str(path), hidden_states="pooled")
    (trace,) = hallutrace.open(run)
    plain = plain_states(run, trace)[1, trace.prompt_length - 1 :]
    spoken = len(said) - (said[-1] == EOS)
    mean = plain[1 : spoken + 1].mean(0) if spoken else plain[0]
    expected = np.stack([plain[0], plain[spoken], plain[-1], mean])
    np.testing.assert_allclose(trace.hidden(1), expected, rtol=1e-4, atol=1e-4)


def test_hidden_states_of_a_half_precision_model_are_its_own(make: Make) -> None:
    run = make(dtype="bfloat16", limit=2)
    trace = hallutrace.open(run)[0]
    assert Run(run).manifest().identity["hidden"]["dtype"] == "bfloat16"
    states = trace.hidden(1)
    assert (states.view(np.uint32) & 0xFFFF == 0).all()
    assert states.shape == (len(trace.answer_tokens) + 1, 48)


@pytest.mark.parametrize(
    ("choice", "layers"), [("all", [0, 1, 2]), ("every:2", [0, 2]), ("1", [1])]
)
def test_hidden_layers_are_chosen(make: Make, choice: str, layers: list[int]) -> None:
    trace = hallutrace.open(make(hidden_layers=choice, limit=1))[0]
    assert trace.hidden_layers == layers
    missing = next(layer for layer in (-1, 0, 3) if layer not in layers)
    with pytest.raises(InputError) as raised:
        trace.hidden(missing)
    kept = {"all": "0-2", "every:2": "0, 2", "1": "1"}[choice]
    assert str(raised.value) == f"Expected a layer with hidden states ({kept}), got {missing}"


def test_a_run_without_hidden_states_says_so(make: Make) -> None:
    trace = hallutrace.open(make(hidden_states="none"))[0]
    assert (trace.hidden_layers, trace.hidden_tokens) == ([], [])
    with pytest.raises(InputError) as raised:
        trace.hidden(0)
    assert str(raised.value) == (
        "Expected a layer with hidden states (none: extract with `hidden_states='answer'`), got 0"
    )


def test_hidden_layers_that_a_model_does_not_have_are_refused(make: Make) -> None:
    with pytest.raises(InputError) as raised:
        make(hidden_layers="0,3")
    assert str(raised.value).startswith(
        "Expected `hidden_layers` to be layers below 3, got '0,3' for "
    )


# Laziness ---------------------------------------------------------------------------------------


def test_nothing_is_opened_before_it_is_needed(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    read: list[str] = []

    class Watched:
        def __init__(self, path: Path, **options: Any) -> None:
            opened.append(path.stem)
            self._shard = whole(path, **options)

        def __getattr__(self, name: str) -> Any:
            return getattr(self._shard, name)

        def tensor(self, position: int, name: str) -> Any:
            read.append(name)
            return self._shard.tensor(position, name)

    from hallutrace.store import shard_traces as module

    whole = module.Shard
    monkeypatch.setattr(module, "Shard", Watched)
    store = hallutrace.open(run)
    store.info(), store.labels(), len(store), repr(store)
    assert opened == []
    trace = store[4]
    assert (opened, read) == (["00001"], [])
    assert trace.question
    assert read == ["meta"]
    store["q5"].hidden(1)
    assert (opened, read[1:]) == (["00001"], ["meta", "hidden"])


def test_few_shards_are_open_at_a_time(make: Make) -> None:
    store = TraceStore(make(shard_size=1, batch_size=1))
    for number in range(7):
        store.shard(number)
    assert len(store._open) == min(7, OPEN_SHARDS)
    first = store[0]
    with store:
        pass
    assert len(store._open) == 0
    assert first.id == "q0"


def test_arrays_are_views_that_outlive_the_store(run: Path) -> None:
    tokens = hallutrace.open(run)[0].tokens
    assert not tokens.flags.writeable
    assert not tokens.flags.owndata
    assert tokens.tolist() == hallutrace.open(run)[0].tokens.tolist()


# Damage -----------------------------------------------------------------------------------------


def place_of(run: Path, shard: str, name: str) -> int:
    """Where a tensor begins in a shard's file."""
    content = (run / "shards" / f"{shard}.safetensors").read_bytes()
    header = int.from_bytes(content[:8], "little")
    return int(8 + header + json.loads(content[8 : 8 + header])[name]["data_offsets"][0])


def flip(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("tokens", lambda trace: trace.tokens),
        ("meta", lambda trace: trace.question),
        ("edges.weight", lambda trace: trace.layer(0)),
        ("hidden", lambda trace: trace.hidden(0)),
        ("marginals.entropy", lambda trace: trace.marginals.entropy),
    ],
)
def test_a_flipped_bit_is_found_where_it_is_read(
    copy: Path, name: str, read: Callable[[Trace], Any]
) -> None:
    flip(copy / "shards" / "00001.safetensors", place_of(copy, "00001", f"00001.{name}"))
    store = hallutrace.open(copy)
    for trace in (*store[:4], *store[5:]):
        read(trace)
    with pytest.raises(DamagedError) as raised:
        read(store[4])
    assert str(raised.value) == (
        f"Expected a shard of schema 2, got bytes that their checksum does not know in `{name}` "
        f"of trace 00001 in {copy / 'shards' / '00001.safetensors'} - "
        "restore the file from a copy, or delete it with its commit record and extract again"
    )
    with pytest.raises(DamagedError):
        store.shard(1).verify()


def test_a_shard_that_was_cut_short_is_damaged(copy: Path) -> None:
    path = copy / "shards" / "00001.safetensors"
    size = path.stat().st_size
    path.write_bytes(path.read_bytes()[:-64])
    store = hallutrace.open(copy)
    assert len(store) == 7
    assert store[0].tokens.size
    with pytest.raises(DamagedError) as raised:
        store[3]
    assert str(path) in str(raised.value)
    path.write_bytes(path.read_bytes() + b"\0" * 64 + b"more")
    with pytest.raises(DamagedError):
        store[3]
    assert path.stat().st_size == size + 4


def test_a_shard_of_another_size_than_recorded_is_damaged(copy: Path) -> None:
    shutil.copy(copy / "shards" / "00000.safetensors", copy / "shards" / "00001.safetensors")
    sizes = [(copy / "shards" / f"0000{at}.json").read_bytes() for at in (0, 1)]
    there, here = (json.loads(size) for size in sizes)
    with pytest.raises(DamagedError) as raised:
        hallutrace.open(copy)[3]
    path = copy / "shards" / "00001.safetensors"
    assert str(raised.value) == (
        f"Expected {here['size']} bytes in {path}, as its commit record says, got {there['size']} "
        "- restore it from a copy"
    )


def test_a_shard_in_the_place_of_another_is_damage(copy: Path) -> None:
    shards = copy / "shards"
    shutil.copy(shards / "00000.safetensors", shards / "00001.safetensors")
    record = json.loads((shards / "00001.json").read_text())
    size = (shards / "00000.safetensors").stat().st_size
    (shards / "00001.json").write_text(json.dumps(record | {"size": size}))
    with pytest.raises(DamagedError) as raised:
        hallutrace.open(copy)["q3"]
    assert str(raised.value) == (
        f"Expected the trace ['q3', 0] in {shards / '00001.safetensors'}, as its commit record "
        "says, got ['q0', 0] - restore it from a copy"
    )


def forge(copy: Path, tmp_path: Path, change: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
    """Puts another shard in the place of q6's, with right checksums; what its record should say."""
    trace = hallutrace.open(copy)["q6"]
    arrays = {name: trace.stored(name) for name in TENSORS}
    change(arrays)
    for folder in ("partial", "shards"):
        (tmp_path / folder).mkdir()
    right = CommitRecord.read(copy / "shards" / "00002.json")
    writer = ShardWriter(tmp_path, "00002", "forged", 1, right.description())
    writer.append(0, "q6", 0, arrays)
    writer.end_batch("")
    size, checksum = writer.finish(right.counts, right.indices, right.halvings)
    shutil.copy(tmp_path / "shards" / "00002.safetensors", copy / "shards")
    return {"size": size, "checksum": checksum}


@pytest.mark.parametrize(
    ("kept", "found"),
    [
        (MEMBERS[:2] + MEMBERS[3:], "no group in `meta`"),
        (("id", "sample"), "no group, index, question, context, prompt, answer, references"),
    ],
)
def test_a_meta_without_its_members_is_damage(
    copy: Path, tmp_path: Path, kept: tuple[str, ...], found: str
) -> None:
    meta = hallutrace.open(copy)["q6"].meta
    forged = np.frombuffer(canonical({name: meta[name] for name in kept}), np.uint8)
    path = copy / "shards" / "00002.json"
    record = json.loads(path.read_text())
    record |= forge(copy, tmp_path, lambda arrays: arrays.update(meta=forged))
    path.write_text(json.dumps(record))
    with pytest.raises(DamagedError) as raised:
        _ = hallutrace.open(copy)["q6"].question
    assert found in str(raised.value)
    assert "trace 00000 ('q6')" in str(raised.value)


def test_a_shard_forged_by_every_rule_is_found_by_its_commit_record(
    copy: Path, tmp_path: Path
) -> None:
    record = json.loads((copy / "shards" / "00002.json").read_text())
    told = forge(
        copy, tmp_path, lambda arrays: arrays.update(tokens=np.flip(arrays["tokens"]).copy())
    )
    assert told["size"] == record["size"]
    damage = [finding.damage for finding in verify_run(copy)]
    assert damage[:2] == [None, None]
    path = copy / "shards" / "00002.safetensors"
    assert str(damage[2]).startswith(
        f"Expected the checksum {record['checksum']} of {path}, as its commit record says, "
        f"got {told['checksum']}"
    )


def test_a_missing_shard_is_damage(copy: Path) -> None:
    path = copy / "shards" / "00002.safetensors"
    path.unlink()
    store = hallutrace.open(copy)
    assert store["q5"].tokens.size
    with pytest.raises(DamagedError) as raised:
        store["q6"]
    assert str(raised.value) == (
        f"Expected the shard {path}, got no such file beside its commit record - "
        "restore it from a copy, or delete the record and extract again"
    )


def test_a_record_of_another_run_is_damage(copy: Path, make: Make) -> None:
    other = make(top_k=2)
    for name in ("00000.json", "00000.safetensors"):
        shutil.copy(other / "shards" / name, copy / "shards" / name)
    mine, theirs = Run(copy).manifest().fingerprint, Run(other).manifest().fingerprint
    with pytest.raises(DamagedError) as raised:
        hallutrace.open(copy)
    assert str(raised.value).startswith(
        f"Expected shards of the run {mine}, got {theirs} in shard 00000 of {copy}"
    )


def test_a_broken_record_or_manifest_is_damage(copy: Path) -> None:
    record = copy / "shards" / "00001.json"
    content = record.read_bytes()
    record.write_bytes(content[:-20])
    with pytest.raises(DamagedError, match=f"Expected JSON in {record}, got "):
        hallutrace.open(copy)
    record.write_bytes(b"{}")
    with pytest.raises(
        DamagedError, match="Expected a commit record of schema 2, got another schema or name in "
    ):
        hallutrace.open(copy)
    record.write_bytes(content)
    manifest = copy / "manifest.json"
    whole = manifest.read_bytes()
    manifest.write_bytes(whole.replace(b'"top_k": 16', b'"top_k": 17'))
    told = (
        "Expected identity and facts with the fingerprint .* got others .* restore it from a copy"
    )
    with pytest.raises(DamagedError, match=told):
        hallutrace.open(copy)
    # Facts belong to it too.
    manifest.write_bytes(whole.replace(b'"hidden_size": ', b'"hidden_size": 1'))
    with pytest.raises(DamagedError, match=told):
        hallutrace.open(copy)


def test_what_is_no_run_is_told(tmp_path: Path) -> None:
    missing = tmp_path / "nowhere"
    with pytest.raises(NotARunError) as raised:
        hallutrace.open(missing)
    assert str(raised.value) == (
        f"Expected a run in {missing}, got no such folder - "
        "give the folder that `hallutrace extract` wrote"
    )
    with pytest.raises(FileNotFoundError) as found:
        hallutrace.open(tmp_path)
    assert str(found.value) == (
        f"Expected a run in {tmp_path}, got no manifest.json in it - "
        "give the folder that `hallutrace extract` wrote"
    )


def test_an_empty_run_is_an_empty_sequence(copy: Path) -> None:
    shutil.rmtree(copy / "shards")
    store = hallutrace.open(copy)
    assert (len(store), list(store), list(store.shards())) == (0, [], [])
    assert isinstance(store, TraceStore)
    with pytest.raises(IndexError):
        store[0]


def test_a_store_reads_what_was_committed_when_it_was_opened(copy: Path) -> None:
    record = copy / "shards" / "00002.json"
    content = record.read_bytes()
    record.unlink()
    store = hallutrace.open(copy)
    record.write_bytes(content)
    assert (len(store), len(hallutrace.open(copy))) == (6, 7)
    assert all(isinstance(shard, ShardTraces) for shard in store.shards())


# Traces as values -------------------------------------------------------------------------------


def test_a_trace_goes_to_other_processes(run: Path) -> None:
    import pickle

    store = hallutrace.open(run)
    for trace in (store[3], store.shard(0)[0]):
        copy = pickle.loads(pickle.dumps(trace))
        assert copy == trace
        assert copy.meta == trace.meta
        np.testing.assert_array_equal(copy.layer(1).weights, trace.layer(1).weights)
        assert pickle.loads(pickle.dumps(copy)) == trace
    shard = pickle.loads(pickle.dumps(store.shard(1)))
    assert [trace.id for trace in shard] == [trace.id for trace in store.shard(1)]


def test_a_trace_is_in_its_run(run: Path, make: Make) -> None:
    store, other = hallutrace.open(run), hallutrace.open(make(top_k=3))
    trace = store[3]
    assert trace in store
    assert trace in list(store)
    assert store.index(trace) == 3
    assert trace == hallutrace.open(run)[3]
    assert len({trace, store[3], store[4]}) == 2
    assert trace != store[4]
    assert trace not in other
    assert "q3" in store
    assert ("q3", 0) in store
    assert "nobody" not in store
    assert ("q3", 1) not in store
    assert 3 not in store


# Numbers that are none --------------------------------------------------------------------------


def test_verify_finds_numbers_that_are_none(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As older versions stored them."""
    whole = trace_arrays.arrays_of
    cases = {
        "logprob": np.nan,
        "token_entropy": np.inf,
        "marginals.value_norm": np.nan,
        "marginals.entropy": -np.inf,
        "hidden": np.nan,
    }

    def broken(replayed: Any, tokens: list[int], *args: Any) -> Any:
        arrays = whole(replayed, tokens, *args)
        if len(tokens) >= 60:
            arrays[name].reshape(-1)[-1] = cases[name]
        return arrays

    monkeypatch.setattr(trace_arrays, "arrays_of", broken)
    for name in cases:
        folder = tmp_path / name
        run = hallutrace.open(make())
        model = run.manifest.identity["model"]["name"]
        questions = write_lines(tmp_path / "q.jsonl", question_rows(3))
        options = {"model": model, "questions": str(questions), "out": folder, **RUN_OPTIONS}
        extract(ExtractConfig.from_options(options))
        (found,) = verify_run(folder)
        assert found.damage is not None
        assert f"got 1 that are not in `{name}` of the trace 'q2', sample 0" in found.damage
        (fast,) = verify_run(folder, fast=True)
        assert fast.damage is None


def test_bits_of_bfloat16_are_looked_at() -> None:
    values = torch.tensor([1.0, float("nan"), -float("inf"), 3e38, 0.0]).to(torch.bfloat16)
    raw = values.view(torch.uint16).numpy().view(np.uint8)
    assert count_not_finite("BF16", raw) == 2
    assert count_not_finite("I32", raw[:8]) == 0
