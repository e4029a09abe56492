"""Traces of a model object: those of a run, bit for bit, and the model left as it was."""

from __future__ import annotations

import copy
import pickle
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import hallutrace
from conftest import Extract, write_lines
from hallutrace import ExtractConfig, Trace
from hallutrace.detect import make
from hallutrace.errors import HallutraceError, InputError, ModelError
from hallutrace.extraction.in_memory import TraceOptions
from hallutrace.extraction.trace_arrays import MARGINALS
from hallutrace.graphs import graph_of
from hallutrace.questions.in_memory import PromptList
from tiny_models import save_tiny, tiny_model, tiny_tokenizer

PROMPTS = ["who wrote it?", "when was that said in the north", "why?"]
SHORT: Any = {"max_new_tokens": 5, "batch_size": 2}


@pytest.fixture
def model(checkpoint: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32)


@pytest.fixture
def tokenizer(checkpoint: Path) -> Any:
    return AutoTokenizer.from_pretrained(checkpoint)


def arrays_of(trace: Trace) -> dict[str, Any]:
    """Every tensor of a trace as it is stored, by name."""
    names = [
        *("edges.offset", "logprob", "token_entropy", "tokens", "edges.indptr", "edges.weight"),
        *("edges.key", "hidden", "hidden.scale", "meta", "logsumexp"),
        *("alternatives.token", "alternatives.logprob", "marginals.value_norm"),
        *(f"marginals.{name}" for name in MARGINALS),
    ]
    found = {name: trace.shard.tensor(trace.position, name) for name in names}
    return {name: stored for name, stored in found.items() if stored is not None}


def check_equal(traces: list[Trace], stored: list[Trace]) -> None:
    """Checks that traces in memory have the bits of those of a run."""
    assert len(traces) == len(stored) > 0
    for ours, theirs in zip(traces, stored, strict=True):
        mine, others = arrays_of(ours), arrays_of(theirs)
        assert mine.keys() == others.keys() and len(mine) > 12
        for name, (dtype, shape, data) in mine.items():
            assert (dtype, shape) == others[name][:2], name
            assert data.tobytes() == others[name][2].tobytes(), name


def stored_traces(
    run_extract: Extract, tmp_path: Path, rows: list[dict[str, Any]], **options: Any
) -> list[Trace]:
    """The traces of a run of rows, with their texts as prompts."""
    kind = "responses" if "response" in rows[0] else "questions"
    given = {kind: str(write_lines(tmp_path / "prompts.jsonl", rows))}
    config = {"prompt": "{question}", "shard_size": 500, **SHORT}
    summary = run_extract(**(config | given | options))
    assert summary.failures == 0
    return list(hallutrace.open(summary.folder))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"temperature": 1.0, "samples": 2, "seed": 3, "top_p": 0.9, "hidden_states": "pooled"},
        {"num_beams": 3, "heads": "each", "hidden_dtype": "int8", "marginal_rows": "all"},
    ],
)
def test_traces_are_those_of_a_run(
    options: dict[str, Any], model: Any, tokenizer: Any, run_extract: Extract, tmp_path: Path
) -> None:
    rows = [{"question": prompt} for prompt in PROMPTS]
    stored = stored_traces(run_extract, tmp_path, rows, **options)
    check_equal(hallutrace.trace(model, tokenizer, PROMPTS, **SHORT, **options), stored)


def test_given_responses_are_replayed(
    model: Any, tokenizer: Any, run_extract: Extract, tmp_path: Path
) -> None:
    responses: list[Any] = ["an answer", "no", [40, 41, 42]]
    rows = [
        {"question": prompt, "response": response}
        for prompt, response in zip(PROMPTS, responses, strict=True)
    ]
    stored = stored_traces(run_extract, tmp_path, rows)
    traces = hallutrace.trace(model, tokenizer, PROMPTS, responses, **SHORT)
    check_equal(traces, stored)
    assert [trace.finish_reason for trace in traces] == ["eos", "eos", "given"]
    ids = hallutrace.trace(model, tokenizer, PROMPTS[2:], [np.array([40, 41, 42])])
    assert ids[0].answer_tokens.tolist() == [40, 41, 42]


def test_a_chat_is_written_by_the_template(run_extract: Extract, tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "chat", chat=True)
    model = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    rows = [{"question": prompt} for prompt in PROMPTS]
    stored = stored_traces(run_extract, tmp_path, rows, model=str(folder), chat="on")
    check_equal(hallutrace.trace(model, tokenizer, PROMPTS, chat=True, **SHORT), stored)
    messages = [[{"role": "user", "content": prompt}] for prompt in PROMPTS]
    by_messages = hallutrace.trace(model, tokenizer, messages, **SHORT)
    for ours, theirs in zip(by_messages, stored, strict=True):
        assert (ours.prompt, ours.question) == (theirs.prompt, theirs.question)
        assert ours.tokens.tolist() == theirs.tokens.tolist()
    longer = [[*messages[0], {"role": "assistant", "content": "ab"}, *messages[2]]]
    trace = hallutrace.trace(model, tokenizer, longer, **SHORT)[0]
    assert trace.question == PROMPTS[2]
    assert trace.prompt == tokenizer.apply_chat_template(
        longer[0], tokenize=False, add_generation_prompt=True
    )
    # As given: no template, the special tokens of the tokenizer.
    plain = hallutrace.trace(model, tokenizer, PROMPTS, **SHORT)[0]
    assert plain.tokens[: plain.prompt_length].tolist() == tokenizer(PROMPTS[0])["input_ids"]


def test_detectors_and_graphs_take_them(model: Any, tokenizer: Any) -> None:
    trace = hallutrace.trace(model, tokenizer, PROMPTS[:1], ["an answer"])[0]
    assert make("perplexity").score(trace) == pytest.approx(-trace.logprob.mean(), rel=1e-5)
    layer = trace.layers[0]
    assert graph_of(trace, layer).num_nodes == len(trace.tokens)
    assert trace.hidden(0).shape == (len(trace.answer_tokens) + 1, model.config.hidden_size)
    assert repr(trace).startswith("Trace('q")


def test_nothing_is_left_on_the_disk(
    model: Any, tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    trace = hallutrace.trace(model, tokenizer, PROMPTS[:1], ["an answer"])[0]
    with pytest.raises(InputError, match=r"got 1 that failed"):
        hallutrace.trace(model, tokenizer, ["b" * 300])
    assert list(scratch.iterdir()) == []
    assert np.isfinite(trace.hidden(1)).all() and len(trace.layer(2).weights) > 0
    with pytest.raises(InputError, match="Expected a trace of an open run to pickle"):
        pickle.dumps(trace)


def test_equal_prompts_stay_apart(model: Any, tokenizer: Any) -> None:
    traces = hallutrace.trace(model, tokenizer, ["why?"] * 3, ["a", "b", "a"])
    assert [trace.answer for trace in traces] == ["a", "b", "a"]
    assert len({trace.id for trace in traces}) == 3
    assert len({trace.group for trace in traces}) == 1
    assert [trace.index for trace in traces] == [0, 1, 2]


def state_of(model: Any) -> list[Any]:
    """Everything of a model that tracing might change, in comparable form."""
    modules = [
        (
            name,
            module.training,
            {key: id(value) for key, value in vars(module).items()},
            {key: (id(value), value._version) for key, value in module._buffers.items()},
            [id(hook) for hook in module._forward_hooks.values()],
            [id(hook) for hook in module._forward_pre_hooks.values()],
        )
        for name, module in model.named_modules()
    ]
    weights = [
        (name, id(weight), weight.requires_grad, weight._version, weight.device)
        for name, weight in model.named_parameters()
    ]
    configs = [
        (config._attn_implementation_internal, copy.deepcopy(config.to_dict()))
        for module in model.modules()
        if (config := getattr(module, "config", None)) is not None
    ]
    generation = (id(model.generation_config), model.generation_config.to_dict())
    return [modules, weights, configs, generation, torch.get_rng_state().tolist()]


@pytest.fixture
def used(model: Any) -> Iterator[Any]:
    """A model in the middle of being trained and generated with by its owner."""
    model.train()
    model.model.layers[1].eval()
    model.lm_head.requires_grad_(False)
    model.generation_config.update(do_sample=True, top_k=3, max_length=99)
    model.set_attn_implementation("eager")
    model.model.register_forward_hook(lambda *_: None)
    yield model


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_the_model_is_left_as_it_was(temperature: float, used: Any, tokenizer: Any) -> None:
    before = state_of(used)
    hallutrace.trace(used, tokenizer, PROMPTS, temperature=temperature, **SHORT)
    assert state_of(used) == before
    hallutrace.trace(used, tokenizer, PROMPTS, ["a"] * 3)
    assert state_of(used) == before


def test_the_model_is_left_as_it_was_after_an_error(
    used: Any, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # It fails in the check of the capture, in generation, and in the replay.
    for passes in (0, 20, 60):
        left = iter(range(passes))

        def forward(
            *args: Any, left: Iterator[int] = left, whole: Any = used.model.forward, **kwargs: Any
        ) -> Any:
            if next(left, None) is None:
                raise ValueError("the cable was pulled")
            return whole(*args, **kwargs)

        with monkeypatch.context() as patch:
            patch.setattr(used.model, "forward", forward)
            before = state_of(used)
            with pytest.raises(HallutraceError, match="the cable was pulled"):
                hallutrace.trace(used, tokenizer, PROMPTS * 8, temperature=1.0, **SHORT)
            assert state_of(used) == before


def test_training_goes_on_after_a_trace(tokenizer: Any) -> None:
    """Nothing that was made in inference mode stays in a model whose rotary embedding grows."""
    model = tiny_model("llama")
    config = copy.deepcopy(model.config)
    config.max_position_embeddings = 16
    config.rope_parameters = {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 10_000.0}
    model = AutoModelForCausalLM.from_config(config).train()
    config.max_position_embeddings = model.config.max_position_embeddings = 64
    before = state_of(model)
    hallutrace.trace(model, tokenizer, ["who wrote it and when was it?"], ["it was said at sea"])
    assert state_of(model) == before
    ids = torch.arange(4, 40)[None]
    model(input_ids=ids, labels=ids).loss.backward()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"prompts": "who?"}, "Expected `prompts`, a list of texts, got a text"),
        ({"prompts": []}, "Expected `prompts`, a list of texts, got none"),
        ({"responses": ["a"]}, "Expected `responses`, one for each of 3 prompts, got 1"),
        ({"responses": "abc"}, "Expected `responses`, one for each of 3 prompts, got a text"),
        ({"responses": ["a", None, "b"]}, r"got None at `responses\[1\]`"),
        ({"responses": ["a", 1.5, "b"]}, r"got 1.5 at `responses\[1\]`"),
        ({"prompts": [[{"role": "user"}]]}, r"at `prompts\[0\]`"),
        ({"prompts": ["a", [{"role": "user", "content": "b"}]]}, "got both"),
        ({"chat": True}, "Expected a tokenizer with a chat template, got one without"),
        ({"model_name": 1}, "got model_name - leave out what it does not take"),
        (
            {"top_k": 0},
            "Expected `top_k` to be greater .* got 0 - change `top_k`$",
        ),
        ({"num_beams": 200}, "got 200 - change `num_beams`$"),
        ({"max_new_tokens": 256}, "got 256 - change `max_new_tokens`$"),
        (
            {"prompts": ["a", "b" * 300, "c"]},
            r"got 1 that failed, .* `prompts\[1\]`",
        ),
    ],
)
def test_wrong_arguments_are_told(
    arguments: dict[str, Any], told: str, model: Any, tokenizer: Any
) -> None:
    with pytest.raises(InputError, match=told):
        hallutrace.trace(model, tokenizer, **({"prompts": PROMPTS} | arguments))


def test_other_objects_are_refused(model: Any, tokenizer: Any) -> None:
    with pytest.raises(ModelError, match=r"Expected `model`, a causal .*, got torch"):
        hallutrace.trace(torch.nn.Linear(2, 2), tokenizer, PROMPTS)
    with pytest.raises(ModelError, match=r"Expected `model`, .* got transformers.*Qwen3Model"):
        hallutrace.trace(model.model, tokenizer, PROMPTS)
    with pytest.raises(ModelError, match="Expected `tokenizer`, one of transformers, got str"):
        hallutrace.trace(model, "qwen3", PROMPTS)
    with torch.device("meta"):
        empty = AutoModelForCausalLM.from_config(model.config)
    with pytest.raises(ModelError, match="some on the device meta"):
        hallutrace.trace(empty, tokenizer, PROMPTS)


def test_options_are_fields_of_the_configuration() -> None:
    hints = get_type_hints(TraceOptions)
    panels = {"Prompt and decoding", "Attention", "Hidden states and tokens"}
    fields = {
        name
        for name, field in ExtractConfig.model_fields.items()
        if isinstance(field.json_schema_extra, dict) and field.json_schema_extra["panel"] in panels
    }
    assert set(hints) == (fields - {"prompt", "chat"}) | {"response_eos"}


def test_a_source_of_prompts_is_one_of_questions() -> None:
    source = PromptList(["a", "b"], None)
    assert [question.question for question in source if hasattr(question, "question")] == ["a", "b"]
    assert (source.total, source.has_responses, source.describe()) == (2, False, [])


def test_an_untrained_tokenizer_is_refused(model: Any) -> None:
    empty = tiny_tokenizer()
    empty.backend_tokenizer.model = type(empty.backend_tokenizer.model)()
    with pytest.raises(ModelError, match="Expected the tokenizer of "):
        hallutrace.trace(model, empty, PROMPTS)
