"""Attention features against their papers' formulas, from the whole matrices of generation."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hallutrace
from conftest import Extract, eager_forward
from detect_runs import Made, causal_attention, reduce_layers, stacked, write_run
from hallutrace import ExtractConfig
from hallutrace.detect import make
from hallutrace.detect.detectors.attention_score import attention_score
from hallutrace.detect.detectors.lapeigvals import laplacian_eigenvalues
from hallutrace.detect.detectors.lookback_lens import lookback_ratios
from hallutrace.detect.detectors.rauq import middle_layers, uncertainties
from hallutrace.detect.detectors.sinkprobe import sink_scores
from hallutrace.detect.features import (
    answer_rows,
    answer_states,
    hidden_vector,
    top_values,
)
from hallutrace.detect.options import HIDDEN_VECTORS
from hallutrace.errors import InputError
from hallutrace.extraction.trace_arrays import POOLED
from hallutrace.model.loading import load

NAMES = [
    "lapeigvals", "attneigvals", "sinkprobe", "sinkprobe-later", "lookback-lens",
    "attention-score", "rauq", "rauq-code",
]  # fmt: skip
TOP_K, ALPHA = 10, 0.2


# What the papers write, over whole matrices in float64 -------------------------------------------


def descending(values: np.ndarray) -> np.ndarray:
    """The ten largest, zeros after those of a short sequence."""
    return np.pad(np.sort(values)[::-1][:TOP_K], (0, max(TOP_K - len(values), 0)))


def eigenvalues(matrix: np.ndarray) -> np.ndarray:
    # Of the transpose, which is upper triangular: LAPACK is exact there, and they are the same.
    return descending(np.linalg.eigvals(matrix.T).real)


def laplacian(attention: np.ndarray) -> np.ndarray:
    rows = len(attention)
    degree = [attention[column:, column].sum() / (rows - column) for column in range(rows)]
    return np.diag(degree) - attention


def sinks(attention: np.ndarray, own: bool) -> np.ndarray:
    found = []
    for column in range(len(attention)):
        below = attention[column + (not own) :, column]
        found.append(below.mean() if len(below) else 0.0)
    return descending(np.array(found))


def lookback(attention: np.ndarray, prompt: int) -> float:
    ratios = []
    for row in range(prompt - 1, len(attention)):
        on_prompt = attention[row, :prompt].mean()
        new = attention[row, prompt : row + 1]
        ratios.append(on_prompt / (on_prompt + (new.mean() if len(new) else 0.0)))
    return float(np.mean(ratios))


def rauq(
    attention: np.ndarray, prompt: int, logprob: np.ndarray, code: bool, margin: float = 0.0
) -> list[float]:
    """Over [layers, heads, N, N]; one score, or several where heads are equal within a margin."""
    layers, probability = len(attention), np.exp(logprob.astype(np.float64))
    scores = []
    for layer in range(layers // 3, min(int(np.ceil(layers / 3 * 2)) + 1, layers)):
        steps = range(1, len(probability))
        shift = -1 if code else 0
        seen = np.array(
            [[head[prompt + t + shift, prompt + t - 1] for t in steps] for head in attention[layer]]
        )
        means = seen.mean(axis=1) if len(probability) > 1 else np.zeros(1)
        equal = np.flatnonzero(means >= means.max() - margin) if margin else [means.argmax()]
        scores.append([])
        for head in equal:
            confidence = [probability[0]]
            for t in steps:
                carried = seen[head, t - 1] * confidence[-1]
                confidence.append(ALPHA * probability[t] + (1 - ALPHA) * carried)
            scores[-1].append(float(code - np.log(confidence).mean()))
    return sorted({max(chosen) for chosen in itertools.product(*scores)})


def paper(name: str, attention: np.ndarray, prompt: int, logprob: np.ndarray) -> np.ndarray:
    """The features, or the score, of one detector from all N rows of a replay."""
    whole = attention.astype(np.float64)
    heads = whole[:, :, :-1, :-1].reshape(-1, whole.shape[2] - 1, whole.shape[2] - 1)
    if name == "attention-score":
        middle = whole[(len(whole) - 1) // 2]
        logs = np.log(np.maximum([np.diag(head)[prompt:] for head in middle], 2.0**-126))
        return np.array([-logs.mean(axis=1).sum()])
    if name in ("rauq", "rauq-code"):
        return np.array(rauq(whole, prompt, logprob, name == "rauq-code"))
    by_head: dict[str, Any] = {
        "lapeigvals": lambda head: eigenvalues(laplacian(head)),
        "attneigvals": eigenvalues,
        "sinkprobe": lambda head: sinks(head, own=True),
        "sinkprobe-later": lambda head: sinks(head, own=False),
        "lookback-lens": lambda head: [lookback(head, prompt)],
    }
    return np.concatenate([by_head[name](head) for head in heads])


# Before storing ----------------------------------------------------------------------------------


def computed(name: str, made: Made) -> np.ndarray:
    """The same from float32 marginals that were not stored."""
    assert made.logprob is not None
    layers = reduce_layers(made)
    diagonal, received = stacked(layers, "diagonal"), stacked(layers, "received_mean")
    answer = made.tokens - made.prompt
    middle = middle_layers(len(layers))
    if name == "lapeigvals":
        return top_values(laplacian_eigenvalues(diagonal, received), TOP_K).reshape(-1)
    if name == "attneigvals":
        return top_values(diagonal[..., :-1], TOP_K).reshape(-1)
    if name in ("sinkprobe", "sinkprobe-later"):
        scores = sink_scores(diagonal, received, own_row=name == "sinkprobe")
        return top_values(scores, TOP_K).reshape(-1)
    if name == "lookback-lens":
        ratios = lookback_ratios(stacked(layers, "mass"), made.prompt)
        return ratios.mean(axis=2).reshape(-1)
    if name == "attention-score":
        place = (len(layers) - 1) // 2
        logs = stacked(layers, "log_diagonal")
        return np.array([-attention_score(logs, place, made.prompt, answer, "answer")])
    attention = answer_rows(stacked(layers, "previous"), answer)[:, :, 2:]
    if name == "rauq-code":
        attention = diagonal[:, :, -answer:-1]
    found = uncertainties(attention[middle], made.logprob, ALPHA).mean(axis=1).max()
    return np.array([found + (name == "rauq-code")])


def random_trace(seed: int, sharpness: float, answer: int | None = None) -> Made:
    rng = np.random.default_rng(seed)
    prompt = int(rng.integers(1, 30))
    answer = int(rng.integers(1, 25)) if answer is None else answer
    shape = (int(rng.integers(1, 6)), int(rng.integers(1, 5)), prompt + answer)
    logprob = -rng.exponential(1.0, answer).astype(np.float32)
    return Made(causal_attention(shape, rng, sharpness), prompt, logprob=logprob)


@pytest.mark.parametrize("sharpness", [1.0, 30.0], ids=["flat", "sharp"])
@pytest.mark.parametrize("name", NAMES)
def test_features_are_the_papers_before_storing(name: str, sharpness: float) -> None:
    for seed in range(12):
        made = random_trace(seed, sharpness, answer=1 if seed == 0 else None)
        wanted = paper(name, made.attention, made.prompt, made.logprob)  # type: ignore[arg-type]
        np.testing.assert_allclose(computed(name, made), wanted, rtol=1e-6, atol=1e-6)


# As stored ---------------------------------------------------------------------------------------


def assert_stored(name: str, trace: Any, attention: np.ndarray) -> None:
    """Within 1e-3 of the paper's.

    RAUQ compares heads, and float16 cannot tell those whose means are closer than it resolves: it
    may then be that of another head of those.
    """
    found, logprob = of_trace(name, trace), trace.logprob
    wanted = paper(name, attention, trace.prompt_length, logprob)
    if name.startswith("rauq"):
        whole = attention.astype(np.float64)
        several = rauq(whole, trace.prompt_length, logprob, name == "rauq-code", margin=5e-4)
        wanted = np.array(several)[[np.abs(several - found).argmin()]]
    np.testing.assert_allclose(found, wanted, atol=1e-3, rtol=1e-5, err_msg=name)


def of_trace(name: str, trace: Any) -> np.ndarray:
    detector = make(name)
    if detector.trained:
        return np.asarray(detector.feature(trace))  # type: ignore[attr-defined]
    return np.array([detector.score(trace)])


@pytest.mark.parametrize("all_rows", [False, True], ids=["answer rows", "all rows"])
@pytest.mark.parametrize("sharpness", [1.0, 30.0], ids=["flat", "sharp"])
def test_features_are_the_papers_as_stored(
    tmp_path: Path, sharpness: float, all_rows: bool
) -> None:
    for seed in range(8):
        made = random_trace(seed, sharpness, answer=1 if seed == 0 else None)
        folder = write_run(tmp_path / str(seed), [made], all_rows=all_rows)
        trace = hallutrace.open(folder)[0]
        for name in NAMES:
            assert_stored(name, trace, made.attention)


def test_features_of_an_extracted_run_are_those_of_eager_attention(run_extract: Extract) -> None:
    folder = run_extract(hidden_states="none").folder
    name = hallutrace.open(folder).manifest.identity["model"]["name"]
    loaded = load(ExtractConfig(model=name))
    for trace in hallutrace.open(folder):
        output = eager_forward(loaded, trace.tokens.tolist())
        attention = np.stack([layer[0].numpy() for layer in output.attentions])
        for detector in NAMES:
            assert_stored(detector, trace, attention)


# Pieces ------------------------------------------------------------------------------------------


def test_the_middle_third_is_that_of_the_paper() -> None:
    assert (middle_layers(32).start, middle_layers(32).stop - 1) == (10, 22)
    assert [middle_layers(count) for count in (1, 2, 4)] == [slice(0, 1), slice(0, 2), slice(1, 4)]


def test_top_values_are_descending_and_filled_with_zeros() -> None:
    values = np.array([[3, 1, 2], [-1, -3, -2]], np.float32)
    assert top_values(values, 2).tolist() == [[3, 2], [-1, -2]]
    assert top_values(values, 4).tolist() == [[3, 2, 1, 0], [-1, -2, -3, 0]]


def test_the_mean_of_token_scores_is_the_score_of_an_answer(tmp_path: Path) -> None:
    traces = [random_trace(seed, 3.0) for seed in range(2)]
    for made in traces:
        made.attention = causal_attention((3, 2, made.tokens), np.random.default_rng(1), 3.0)
    trace = hallutrace.open(write_run(tmp_path / "run", traces))[0]
    for name in ("perplexity", "token-entropy", "rauq"):
        detector = make(name)
        by_token = detector.token_scores(trace)
        assert by_token is not None and by_token.shape == trace.logprob.shape
        assert detector.score(trace) == pytest.approx(by_token.mean())
    by_token = make("min-logprob").token_scores(trace)
    assert by_token is not None and make("min-logprob").score(trace) == by_token.max()
    assert make("length").token_scores(trace) is None
    assert make("length").score(trace) == len(trace.answer_tokens)


def test_a_head_that_pads_a_layer_gives_zeros() -> None:
    nothing = np.zeros((1, 1, 3, 3), np.float32)
    assert not lookback_ratios(nothing, 4).any()


@pytest.mark.parametrize("eos", [True, False])
@pytest.mark.parametrize("answer", [1, 2, 5])
def test_hidden_vectors_are_those_that_are_pooled(tmp_path: Path, answer: int, eos: bool) -> None:
    rng = np.random.default_rng(answer)
    made = Made(
        causal_attention((2, 1, 4 + answer), rng),
        4,
        hidden=rng.normal(size=(2, answer + 1, 6)),
        eos=eos,
    )
    kept = hallutrace.open(write_run(tmp_path / "answer", [made], states="answer"))[0]
    pooled = hallutrace.open(write_run(tmp_path / "pooled", [made], states="pooled"))[0]
    for token in HIDDEN_VECTORS:
        wanted = pooled.hidden(1)[POOLED.index(token)]
        np.testing.assert_allclose(hidden_vector(kept, 1, token), wanted, rtol=1e-6, atol=1e-6)
        assert np.array_equal(hidden_vector(pooled, 1, token), wanted)
    states = answer_states(kept, 1)
    assert states is not None and np.array_equal(states, kept.hidden(1)[1:])
    assert answer_states(pooled, 1) is None
    for trace, token in ((kept, "first"), (pooled, "mean_prompt")):
        with pytest.raises(InputError, match=f"Expected the hidden state `{token}` of a trace"):
            hidden_vector(trace, 1, token)
