"""Scores of answer tokens against numpy: before they are stored, and as a run has them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import hallutrace
from conftest import Extract, eager_forward
from hallutrace import ExtractConfig
from hallutrace.capture.token_scores import SCORED, likeliest_tokens, score
from hallutrace.errors import InputError
from hallutrace.model.loading import load


def likeliest(row: np.ndarray, count: int) -> np.ndarray:
    """The largest first, ties to the lower id."""
    return np.lexsort((np.arange(len(row)), -row))[:count]


def logsumexp(row: np.ndarray) -> float:
    wide = row.astype(np.float64)
    return float(np.log(np.exp(wide - wide.max()).sum()) + wide.max())


@given(
    st.lists(
        st.lists(st.sampled_from([-np.inf, -2.0, -0.0, 0.0, 0.5, 1.0]), min_size=9, max_size=9),
        min_size=1,
        max_size=5,
    ),
    st.integers(0, 9),
)
def test_ties_go_to_the_lower_token(rows: list[list[float]], count: int) -> None:
    logits = np.array(rows, np.float32)
    found = likeliest_tokens(torch.from_numpy(logits), count)
    assert found.tolist() == [likeliest(row, count).tolist() for row in logits]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("vocabulary", [10, 1000, SCORED // 3])
def test_scores_are_those_of_the_oracle(dtype: torch.dtype, vocabulary: int) -> None:
    rng = np.random.default_rng(vocabulary)
    lengths = [1, 4, 2]
    # In bfloat16 thousands of tokens share a logit.
    logits = torch.from_numpy(rng.normal(size=(7, vocabulary)).astype(np.float32) * 3).to(dtype)
    answers = [rng.integers(vocabulary, size=length).tolist() for length in lengths]
    found = score(logits, answers, 10)
    wide = logits.float().numpy()
    begins = np.cumsum([0, *lengths])
    for one, answer, begin in zip(found, answers, begins[:-1], strict=True):
        for at, token in enumerate(answer):
            row = wide[begin + at]
            whole = logsumexp(row)
            tokens = likeliest(row, 10)
            assert one.logsumexp[at] == pytest.approx(whole, abs=1e-6, rel=1e-6)
            assert one.logprob[at] == pytest.approx(row[token] - whole, abs=1e-6, rel=1e-6)
            assert one.logprob[at] + one.logsumexp[at] == pytest.approx(row[token], abs=2e-6)
            assert one.alternatives[at].tolist() == tokens.tolist()
            assert one.alternative_logprobs[at] == pytest.approx(
                row[tokens] - whole, abs=1e-6, rel=1e-6
            )
    assert {one.alternatives.dtype.name for one in found} == {"int32"}


def test_logits_that_are_none_break_nothing() -> None:
    logits = torch.tensor([[np.nan, 1.0, 2.0], [0.0, np.nan, -np.inf]])
    (found,) = score(logits, [[1, 0]], 2)
    assert np.isnan(found.logprob).all() and found.alternatives.shape == (2, 2)


def test_a_run_holds_what_the_model_said(
    run_extract: Extract, checkpoint: Path, tmp_path: Path
) -> None:
    run_extract(alternatives=5)
    loaded = load(ExtractConfig(model=str(checkpoint)))
    for trace in hallutrace.open(tmp_path / "run"):
        logits = eager_forward(loaded, trace.tokens.tolist()).logits[0].float().numpy()
        assert trace.alternatives.tokens.shape == (len(trace.logprob), 5)
        assert trace.alternatives.logprobs.dtype == np.float32
        for at, token in enumerate(trace.answer_tokens):
            row = logits[trace.prompt_length - 1 + at]
            whole = logsumexp(row)
            assert trace.logsumexp[at] == pytest.approx(whole, abs=1e-5)
            assert trace.logprob[at] + trace.logsumexp[at] == pytest.approx(row[token], abs=1e-4)
            tokens, logprobs = trace.alternatives.tokens[at], trace.alternatives.logprobs[at]
            assert np.all(np.diff(logprobs) <= 0) and len(set(tokens.tolist())) == 5
            assert logprobs == pytest.approx(row[tokens] - whole, abs=1e-3, rel=1e-3)
            # Greedy decoding took the likeliest.
            assert token == tokens[0]


def test_alternatives_are_an_option_of_the_identity(run_extract: Extract, tmp_path: Path) -> None:
    run_extract()
    store = hallutrace.open(tmp_path / "run")
    assert store.info()["identity"]["alternatives"] == 10
    assert store[0].alternatives.tokens.shape[1] == 10
    with pytest.raises(InputError, match="alternatives is 10, asked 3"):
        run_extract(alternatives=3)
    run_extract(alternatives=0, out=tmp_path / "none")
    with pytest.raises(InputError, match="extract with `alternatives=10`"):
        _ = hallutrace.open(tmp_path / "none")[0].alternatives
    with pytest.raises(InputError, match=r"Expected `alternatives` of at most \d+ \(the vocab"):
        run_extract(alternatives=10**6, out=tmp_path / "many")
