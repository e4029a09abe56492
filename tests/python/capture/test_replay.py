"""What is captured is what transformers' own eager attention gives, sequence by sequence."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import oracle
from conftest import eager_attention, eager_forward, load_tiny
from hallutrace.capture import attention_hook
from hallutrace.capture.exactness_check import probe
from hallutrace.capture.replay import Reduction, Replayed, Text, replay
from hallutrace.config import ExtractConfig
from hallutrace.errors import InputError, ModelError
from hallutrace.model.generate import Decoding, generate
from hallutrace.model.loading import Loaded, describe, load
from tiny_models import (
    ARCHITECTURES,
    MULTIMODAL,
    UNSUPPORTED,
    WINDOW,
    tiny_model,
    tiny_t5,
    tiny_tokenizer,
    tiny_tokens,
)

ALL = (*ARCHITECTURES, MULTIMODAL)

# Of the small weights of a calm model errors are those of float32. A sharp one multiplies them, and
# shows by much what was forgotten: a window, a softcap, a sink, a mask.
TOLERANCES = {"calm": 1e-6, "sharp": 3e-5}

EVERYTHING = Reduction(top_k=None, heads="each", all_marginal_rows=True)

# (tokens, of them prompt, boundaries of segments)
SHAPES = [(30, 20, [1, 5, 9, 20]), (17, 9, [1, 9]), (23, 22, [1, 1, 22, 22]), (8, 1, [1, 1])]


@dataclass(frozen=True)
class Case:
    """One model, a right-padded batch replayed through it, and the same texts by themselves."""

    loaded: Loaded
    texts: list[Text]
    replayed: list[Replayed]
    eager: list[Any]
    values: list[list[torch.Tensor]]


@cache
def case(architecture: str, temper: str) -> Case:
    loaded = load_tiny(architecture, temper)
    texts = [
        Text(tiny_tokens(1, tokens, seed=tokens)[0].tolist(), prompt, boundaries)
        for tokens, prompt, boundaries in SHAPES
    ]
    replayed = replay(
        loaded, texts, EVERYTHING, hidden_layers=range(loaded.layers), hidden_rows="all", rows=7
    )
    eager, values = [], []
    for text in texts:
        with recorded_values(loaded) as seen:
            eager.append(eager_forward(loaded, text.tokens))
        values.append(seen)
    return Case(loaded, texts, replayed, eager, values)


class recorded_values(list[torch.Tensor]):  # noqa: N801 - reads as a context
    """The values [heads, tokens, width] that eager attention is called with, layer by layer."""

    def __init__(self, loaded: Loaded) -> None:
        layer = next(
            module
            for module in loaded.model.modules()
            if getattr(module, "layer_idx", None) is not None
        )
        self._module = sys.modules[type(layer).__module__]
        self._eager = self._module.eager_attention_forward

    def __enter__(self) -> list[torch.Tensor]:
        def record(
            module: Any, query: Any, key: Any, value: torch.Tensor, *args: Any, **kwargs: Any
        ) -> Any:
            self.append(value[0])
            return self._eager(module, query, key, value, *args, **kwargs)

        self._module.eager_attention_forward = record
        return self

    def __exit__(self, *_: object) -> None:
        self._module.eager_attention_forward = self._eager


def dense(layer: Any) -> np.ndarray:
    """[heads, queries, keys] of a reduction that kept every weight."""
    heads, tokens = layer.indptr.shape[0], layer.indptr.shape[1] - 1
    matrix = np.zeros((heads, tokens, tokens), np.float32)
    edge = 0
    for head, query in np.ndindex(heads, tokens):
        count = layer.indptr[head, query + 1] - layer.indptr[head, query]
        matrix[head, query, layer.keys[edge : edge + count]] = layer.weights[edge : edge + count]
        edge += count
    assert edge == len(layer.keys)
    return matrix


def attention_of(output: Any) -> list[np.ndarray]:
    return [weights[0].numpy() for weights in output.attentions if weights is not None]


def far(left: Any, right: Any) -> float:
    """Largest absolute difference."""
    return float(np.abs(np.asarray(left) - np.asarray(right)).max())


each_case = pytest.mark.parametrize(
    ("architecture", "temper"), [(name, temper) for name in ALL for temper in TOLERANCES]
)


@each_case
def test_attention_is_that_of_eager(architecture: str, temper: str) -> None:
    found = case(architecture, temper)
    for replayed, output in zip(found.replayed, found.eager, strict=True):
        expected = attention_of(output)
        assert len(replayed.layers) == len(expected) > 0
        for layer, weights in zip(replayed.layers, expected, strict=True):
            assert far(dense(layer), weights) <= TOLERANCES[temper]


@each_case
def test_scores_are_those_of_eager_logits(architecture: str, temper: str) -> None:
    found = case(architecture, temper)
    for text, replayed, output in zip(found.texts, found.replayed, found.eager, strict=True):
        logp = torch.log_softmax(output.logits[0, text.prompt_tokens - 1 : -1].float(), -1)
        answer = torch.tensor(text.tokens[text.prompt_tokens :])
        expected = logp.gather(1, answer[:, None])[:, 0]
        scores = replayed.scores
        assert scores.logprob.dtype == scores.entropy.dtype == scores.logsumexp.dtype == np.float32
        assert far(scores.logprob, expected) <= 10 * TOLERANCES[temper]
        whole = torch.logsumexp(output.logits[0, text.prompt_tokens - 1 : -1].double(), -1)
        assert far(scores.logsumexp, whole) <= 10 * TOLERANCES[temper]
        entropy = torch.distributions.Categorical(logits=logp.double()).entropy()
        assert far(scores.entropy, entropy) <= 10 * TOLERANCES[temper]


@each_case
def test_hidden_states_are_those_of_eager(architecture: str, temper: str) -> None:
    found = case(architecture, temper)
    for replayed, output in zip(found.replayed, found.eager, strict=True):
        expected = torch.stack([states[0] for states in output.hidden_states[1:]])
        assert replayed.hidden.shape == expected.shape
        torch.testing.assert_close(replayed.hidden, expected, rtol=1e-4, atol=1e-4)


@each_case
def test_value_norms_are_those_of_eager_values(architecture: str, temper: str) -> None:
    found = case(architecture, temper)
    for replayed, values in zip(found.replayed, found.values, strict=True):
        for norms, value in zip(replayed.value_norms, values, strict=True):
            expected = value.double().pow(2).sum(-1).sqrt()
            assert norms.dtype == np.float32
            np.testing.assert_allclose(norms, expected, rtol=1e-4)


def expected_marginals(weights: np.ndarray, text: Text) -> dict[str, np.ndarray]:
    """The definitions, in float64, on [heads, tokens, tokens]; rows: all."""
    full = weights.astype(np.float64)
    heads, tokens, _ = full.shape
    diagonal = np.einsum("hii->hi", full)
    received = np.zeros((heads, tokens))
    for key in range(tokens):
        rows = full[:, key + 1 : tokens - 1, key]
        received[:, key] = rows.mean(axis=1) if rows.size else 0
    square = (full**2).sum(axis=2)
    bounds = list(pairwise([0, *text.boundaries, tokens]))
    prompt = text.prompt_tokens

    def mean_logs(values: np.ndarray) -> np.ndarray:
        logs = np.log(np.maximum(values, 2.0**-126))
        return np.stack([logs[:, :prompt].mean(1), logs[:, prompt:].mean(1)], axis=1)

    return {
        "diagonal": diagonal,
        "received_mean": received,
        "previous": np.pad(np.einsum("hii->hi", full[:, 1:, :-1]), ((0, 0), (1, 0))),
        "entropy": -(full * np.log(np.where(full > 0, full, 1))).sum(axis=2),
        "square": square,
        "mass": np.stack([full[:, :, a:b].sum(axis=2) for a, b in bounds], axis=2),
        "rough": np.stack([oracle.rough(full[:, :, a:b]) for a, b in bounds], axis=2),
        "log_diagonal": mean_logs(diagonal),
        "log_square": mean_logs(square),
    }


@each_case
def test_marginals_are_those_of_eager(architecture: str, temper: str) -> None:
    found = case(architecture, temper)
    for text, replayed, output in zip(found.texts, found.replayed, found.eager, strict=True):
        for layer, weights in zip(replayed.layers, attention_of(output), strict=True):
            for name, expected in expected_marginals(weights, text).items():
                got = getattr(layer, name)
                assert got.shape == expected.shape, name
                assert got.dtype == np.float32
                slack = 1e-6 + 20 * TOLERANCES[temper]
                # ln magnifies what is small: a weight of 1e-3 has a relative error of 1e-3.
                if name.startswith("log_"):
                    slack *= 100
                np.testing.assert_allclose(got, expected, rtol=1e-5, atol=slack, err_msg=name)


@pytest.mark.parametrize("architecture", ["llama", "qwen3", "mistral"])
def test_value_norms_are_of_key_value_heads_before_repetition(architecture: str) -> None:
    found = case(architecture, "sharp")
    seen: list[torch.Tensor] = []
    projections = [layer.self_attn.v_proj for layer in found.loaded.model.model.layers]
    hooks = [
        projection.register_forward_hook(lambda *call: seen.append(call[-1]))
        for projection in projections
    ]
    eager_forward(found.loaded, found.texts[1].tokens)
    for hook in hooks:
        hook.remove()
    for norms, projected in zip(found.replayed[1].value_norms, seen, strict=True):
        expected = projected[0].unflatten(-1, (2, 16)).norm(dim=-1).T  # [key-value heads, tokens]
        np.testing.assert_allclose(norms, expected.numpy(), rtol=1e-5)


def test_logits_are_computed_for_answer_rows_alone() -> None:
    loaded, texts = load_tiny(), case("qwen3", "sharp").texts
    shapes = []
    hook = loaded.model.get_output_embeddings().register_forward_hook(
        lambda *call: shapes.append(tuple(call[-1].shape))
    )
    replay(loaded, texts, Reduction())
    hook.remove()
    assert shapes == [(1, sum(tokens - prompt for tokens, prompt, _ in SHAPES), 128)]


def test_hidden_rows_and_layers_are_chosen() -> None:
    loaded, texts = load_tiny(), case("qwen3", "sharp").texts
    some = replay(loaded, texts, Reduction(), hidden_layers=[2, 0])
    for text, chosen, full in zip(texts, some, case("qwen3", "sharp").replayed, strict=True):
        answer_rows = full.hidden[[2, 0], text.prompt_tokens - 1 :]
        torch.testing.assert_close(chosen.hidden, answer_rows, rtol=1e-4, atol=1e-4)
    assert all(result.hidden is None for result in replay(loaded, texts, Reduction()))


def test_marginal_rows_and_edge_rows_are_the_answers() -> None:
    found = case("qwen3", "sharp")
    less = Reduction(top_k=None, heads="each", answer_edges=True)
    results = replay(found.loaded, found.texts, less, rows=7)
    for text, result, full in zip(found.texts, results, found.replayed, strict=True):
        first = text.prompt_tokens - 1
        for layer, whole in zip(result.layers, full.layers, strict=True):
            expected = dense(whole)
            expected[:, :first] = 0
            assert np.array_equal(dense(layer), expected)
            assert np.array_equal(layer.diagonal, whole.diagonal)
            assert np.array_equal(layer.received_mean, whole.received_mean)
            for name in ("previous", "entropy", "mass"):
                assert np.array_equal(getattr(layer, name), getattr(whole, name)[:, first:])


@pytest.mark.parametrize("rows", [1, 2, 7, 29, 30, 64, None])
def test_any_size_of_blocks_gives_the_same_attention(rows: int | None) -> None:
    found = case("gemma2", "calm")
    results = replay(found.loaded, found.texts, EVERYTHING, rows=rows)
    for result, output in zip(results, found.eager, strict=True):
        for layer, weights in zip(result.layers, attention_of(output), strict=True):
            assert far(dense(layer), weights) <= 1e-6


def test_block_rows_follow_from_the_shape() -> None:
    assert [attention_hook.block_rows(tokens) for tokens in (1, 256, 257, 8192)] == [1, 256, 64, 32]


@pytest.mark.parametrize("heads", ["mean", "max"])
def test_combined_heads_are_combined_before_the_rules(heads: str) -> None:
    found = case("llama", "calm")
    results = replay(found.loaded, found.texts, Reduction(top_k=3, heads=heads), rows=7)
    for result, output in zip(results, found.eager, strict=True):
        for layer, weights in zip(result.layers, attention_of(output), strict=True):
            combined = weights.mean(0) if heads == "mean" else weights.max(0)
            kept = np.where(combined >= np.sort(combined)[:, -3, None], combined, 0)
            assert far(dense(layer)[0], kept) <= 1e-6


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("architecture", ["qwen3", "gpt_oss"])
def test_half_precision_rows_keep_their_own_sums(architecture: str, dtype: torch.dtype) -> None:
    model = tiny_model(architecture).to(dtype)
    loaded = describe(model, tiny_tokenizer(), architecture, "random")
    tokens = tiny_tokens(1, 20)[0].tolist()
    (result,) = replay(loaded, [Text(tokens, 12, [1, 12])], EVERYTHING)
    for layer, weights in zip(
        result.layers,
        [a[0].float().numpy() for a in eager_forward(loaded, tokens).attentions],
        strict=True,
    ):
        assert far(dense(layer), weights) <= 2e-2
        assert far(dense(layer).sum(-1), weights.sum(-1)) <= 2e-2


# Probing ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", ALL)
def test_probe_tells_layers_heads_and_windows(architecture: str) -> None:
    try:
        facts = probe(load_tiny(architecture))
    except ModelError as error:
        # With transformers 5.6 its sdpa drops what its eager attention does to the scores.
        if architecture == "gemma2" and "and of sdpa" in str(error):
            pytest.skip("sdpa is not what eager attention is for gemma2, with this transformers")
        raise
    sliding = {
        "mistral": [WINDOW] * 3,
        "phi3": [WINDOW] * 3,
        "starcoder2": [WINDOW] * 3,
        "qwen2": [None, WINDOW, WINDOW],
    } | {
        name: [WINDOW, None, WINDOW]
        for name in ("gemma2", "gemma3", MULTIMODAL, "gpt_oss", "cohere2", "exaone4")
    }
    layers = [1, 3] if architecture == "qwen3_next" else [0, 1, 2]
    ungrouped = ("gpt2", "gpt_neox", "opt", "deepseek_v3")
    assert facts.layers == layers
    assert facts.heads == [4] * len(layers)
    assert facts.value_heads == [4 if architecture in ungrouped else 2] * len(layers)
    assert facts.windows == sliding.get(architecture, [None] * len(layers))
    assert facts.deviation <= 5e-5


@pytest.mark.parametrize("architecture", UNSUPPORTED)
def test_models_outside_the_interface_are_refused(architecture: str) -> None:
    loaded = describe(tiny_model(architecture), tiny_tokenizer(), f"tiny/{architecture}", "random")
    with pytest.raises(ModelError) as raised:
        probe(loaded)
    assert str(raised.value) == (
        f"Expected a model whose attention can be captured, got tiny/{architecture} "
        f"({architecture}), which does not use transformers' attention interface - "
        "choose another architecture (llama, qwen, mistral, gemma, phi, gpt2 ...)"
    )


def test_encoder_decoders_are_refused(tmp_path: Path) -> None:
    folder = tiny_t5(tmp_path / "t5")
    with pytest.raises(ModelError) as raised:
        load(ExtractConfig(model=str(folder)))
    assert str(raised.value) == (
        f"Expected a decoder-only language model, got the encoder-decoder {folder} (t5) - "
        "choose a causal model such as Qwen/Qwen3-0.6B"
    )


def test_a_model_is_left_as_it_was() -> None:
    loaded = load_tiny("gemma3_multimodal")
    before = loaded.model.config.get_text_config()._attn_implementation
    tokens = tiny_tokens(1, 12)
    plain = loaded.model(input_ids=tokens).logits
    probe(loaded)
    with pytest.raises(InputError, match="weight"):
        broken = Text(tokens[0].tolist(), 4, [1, 4])
        with_nan(loaded, broken)
    assert loaded.model.config.get_text_config()._attn_implementation == before
    assert torch.equal(loaded.model(input_ids=tokens).logits, plain)


def with_nan(loaded: Loaded, text: Text) -> None:
    """A replay in which one embedding is not a number."""
    weight = loaded.model.get_input_embeddings().weight
    token = text.tokens[0]
    kept = weight.data[token].clone()
    weight.data[token] = torch.nan
    try:
        replay(loaded, [text], Reduction())
    finally:
        weight.data[token] = kept


# After generation -------------------------------------------------------------------------------

PROMPTS = [tiny_tokens(1, length, seed=length)[0].tolist() for length in (13, 4, 9)]


def generated(loaded: Loaded, prompts: list[list[int]], decoding: Decoding) -> list[Text]:
    return [
        Text(prompt + answer.tokens, len(prompt), [1, len(prompt)])
        for prompt, answers in zip(
            prompts, generate(loaded, prompts, decoding, seed=0), strict=True
        )
        for answer in answers
    ]


@pytest.mark.parametrize("beams", [3, 5])
@pytest.mark.parametrize("architecture", ALL)
def test_after_beams_a_trace_is_one_clean_forward_of_its_own_tokens(
    architecture: str, beams: int
) -> None:
    loaded = load_tiny(architecture)
    texts = generated(loaded, PROMPTS, Decoding(max_new_tokens=8, num_beams=beams, samples=2))
    assert len(texts) == 6
    for text, result in zip(texts, replay(loaded, texts, EVERYTHING), strict=True):
        for layer, weights in zip(result.layers, eager_attention(loaded, text.tokens), strict=True):
            assert far(dense(layer), weights) <= 1e-5


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("architecture", ALL)
def test_a_batch_of_different_lengths_gives_what_each_gives_alone(
    architecture: str, beams: int
) -> None:
    loaded = load_tiny(architecture)
    decoding = Decoding(max_new_tokens=8, num_beams=beams)
    together = generated(loaded, PROMPTS, decoding)
    alone = [text for prompt in PROMPTS for text in generated(loaded, [prompt], decoding)]
    assert together == alone
    for text, result in zip(alone, replay(loaded, together, EVERYTHING), strict=True):
        (single,) = replay(loaded, [text], EVERYTHING)
        for layer, other in zip(result.layers, single.layers, strict=True):
            assert far(dense(layer), dense(other)) <= 1e-5
