"""What the check before a run finds: models that a capture would get wrong, in silence."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from conftest import load_tiny
from hallutrace.capture.attention_hook import capturing
from hallutrace.capture.exactness_check import probe
from hallutrace.capture.exactness_check_text import LONGEST, limits_of, text_length, text_of
from hallutrace.capture.native_attention_check import OTHERS, check_native
from hallutrace.capture.replay import Reduction, Text, forward, replay
from hallutrace.capture.tolerance import Tolerance
from hallutrace.errors import ModelError
from hallutrace.model.loading import Loaded, describe
from tiny_models import BOS, EOS, PAD, UNKNOWN, WINDOW, tiny_model, tiny_tokenizer, tiny_tokens


def fresh(architecture: str) -> Loaded:
    return describe(tiny_model(architecture), tiny_tokenizer(), architecture, "random")


def eager_home(loaded: Loaded) -> Any:
    """The module whose eager function a model calls."""
    layer = next(
        module
        for module in loaded.model.modules()
        if getattr(module, "layer_idx", None) is not None
    )
    return sys.modules[type(layer).__module__]


@pytest.fixture
def replace_eager(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Gives a model another eager function, made from its own."""

    def replace(loaded: Loaded, make: Callable[[Any], Any]) -> None:
        home = eager_home(loaded)
        monkeypatch.setattr(home, "eager_attention_forward", make(home.eager_attention_forward))

    yield replace


def test_eager_attention_that_is_not_what_generates_is_refused(
    replace_eager: Callable[..., None],
) -> None:
    loaded = fresh("llama")
    assert loaded.attention == "sdpa"

    def unmasked_scaling(eager: Any) -> Any:
        def forgetful(*args: Any, scaling: float, **kwargs: Any) -> Any:
            return eager(*args, scaling=scaling * 0.5, **kwargs)

        return forgetful

    replace_eager(loaded, unmasked_scaling)
    with pytest.raises(ModelError) as raised:
        probe(loaded)
    said = str(raised.value)
    assert said.startswith(
        "Expected a model whose attention can be captured, got llama (llama): logits of its eager "
        "attention and of sdpa, in which it generates, differ by up to "
    )
    assert said.endswith(f" - {OTHERS}")


def test_weights_that_depend_on_their_block_are_refused(
    replace_eager: Callable[..., None],
) -> None:
    loaded = fresh("llama")

    def by_position(eager: Any) -> Any:
        def counted(module: Any, query: Any, *args: Any, **kwargs: Any) -> Any:
            scale = torch.linspace(1, 3, query.shape[2])[:, None]
            return eager(module, query * scale, *args, **kwargs)

        return counted

    replace_eager(loaded, by_position)
    with pytest.raises(ModelError, match=r"attention of layer 0, head \d differs by up to 0\.\d+"):
        check_native(loaded)


def test_arguments_that_are_not_known_are_refused_by_name() -> None:
    loaded = load_tiny("llama")
    with (
        capturing(loaded.model, lambda *_: None),
        pytest.raises(ModelError) as raised,
    ):
        loaded.model(input_ids=tiny_tokens(), use_cache=False, block_table=torch.zeros(3))
    assert str(raised.value) == (
        "Expected a model whose attention can be captured, got llama: layer 0 calls attention with "
        "the argument `block_table` - "
        "choose another architecture (llama, qwen, mistral, gemma, phi, gpt2 ...)"
    )


def test_a_known_argument_that_an_eager_function_reads_is_refused(
    replace_eager: Callable[..., None],
) -> None:
    loaded = fresh("llama")

    def reading(eager: Any) -> Any:
        def positioned(
            module: Any, query: Any, key: Any, value: Any, attention_mask: Any, scaling: float,
            dropout: float = 0.0, position_ids: Any = None, **kwargs: Any,
        ) -> Any:  # fmt: skip
            return eager(module, query, key, value, attention_mask, scaling, dropout, **kwargs)

        return positioned

    replace_eager(loaded, reading)
    with pytest.raises(ModelError, match="the argument `position_ids`"):
        probe(loaded)


def test_two_forward_passes_within_one_capture_are_refused() -> None:
    loaded = load_tiny("qwen3")
    with capturing(loaded.model, lambda *_: None):
        loaded.model(input_ids=tiny_tokens(), use_cache=False)
        with pytest.raises(ModelError, match="layer 0 attends more than once"):
            loaded.model(input_ids=tiny_tokens(), use_cache=False)


def test_what_a_models_own_code_raises_is_a_refusal(replace_eager: Callable[..., None]) -> None:
    loaded = fresh("llama")

    def broken(_: Any) -> Any:
        def fails(*args: Any, **kwargs: Any) -> Any:
            raise KeyError("full_attention")

        return fails

    replace_eager(loaded, broken)
    with pytest.raises(ModelError) as raised:
        probe(loaded)
    assert "its forward pass failed with KeyError ('full_attention')" in str(raised.value)


@pytest.mark.parametrize("without", ["no embeddings", "not called"])
def test_logits_of_all_rows_serve_where_the_head_cannot_be_reached(
    without: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = fresh("qwen3")
    text = Text(tiny_tokens(1, 20)[0].tolist(), 12, [1, 12])
    (due,) = replay(loaded, [text], Reduction())
    other = None if without == "no embeddings" else torch.nn.Linear(1, 1)
    monkeypatch.setattr(loaded.model, "get_output_embeddings", lambda: other)
    (found,) = replay(loaded, [text], Reduction())
    assert abs(found.scores.logprob - due.scores.logprob).max() <= 1e-5


def test_a_head_that_is_called_twice_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = fresh("qwen3")
    head = loaded.model.get_output_embeddings()
    own = loaded.model.forward

    def twice(*args: Any, **kwargs: Any) -> Any:
        head(torch.zeros(1, 4, head.in_features))
        return own(*args, **kwargs)

    monkeypatch.setattr(loaded.model, "forward", twice)
    with pytest.raises(ModelError, match="after 2 calls of its output embeddings"):
        forward(loaded, [Text(tiny_tokens(1, 20)[0].tolist(), 12, [])])


@pytest.mark.parametrize("architecture", ["qwen3", "mistral", "gemma2", "gpt2", "qwen3_next"])
def test_the_text_is_longer_than_the_windows_and_has_no_special_tokens(architecture: str) -> None:
    loaded = load_tiny(architecture)
    text = text_of(loaded)
    assert len(text) == text_length(loaded) > max([WINDOW, *limits_of(loaded.model.config)])
    assert not {PAD, BOS, EOS, UNKNOWN} & set(text)
    assert len(text) <= (loaded.context_length or LONGEST)


@pytest.mark.parametrize(
    ("window", "longest", "length"),
    [(100, 1024, 158), (400, 1024, 24), (100, 64, 24), (4, 12, 12), (336, 1024, 512)],
)
def test_windows_out_of_reach_are_left_out(window: int, longest: int, length: int) -> None:
    loaded = fresh("mistral")
    loaded.model.config.sliding_window = window
    loaded.model.config.max_position_embeddings = longest
    assert text_length(loaded) == length


@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(torch.float32, (3e-5, 1e-3)), (torch.float16, (5e-3, 0.03)), (torch.bfloat16, (2e-2, 0.15))],
)
@pytest.mark.parametrize("architecture", ["qwen3", "gpt_oss", "qwen3_moe"])
def test_sharp_models_pass_in_every_precision(
    architecture: str, dtype: torch.dtype, tolerance: tuple[float, float]
) -> None:
    model = tiny_model(architecture).to(dtype)
    found = Tolerance.of(model)
    assert (found.weight, found.logits) == tolerance
    facts = probe(describe(model, tiny_tokenizer(), architecture, "random"))
    assert facts.layers == [0, 1, 2]


def test_the_model_and_transformers_are_left_as_they_were() -> None:
    loaded = load_tiny("gemma2")
    home = eager_home(loaded)
    before = home.eager_attention_forward
    with capturing(loaded.model, lambda *_: None), capturing(loaded.model, lambda *_: None):
        assert home.eager_attention_forward is not before
        assert loaded.model.config._attn_implementation == "eager"
    assert home.eager_attention_forward is before
    assert loaded.model.config._attn_implementation == loaded.attention
    assert list(inspect.signature(before).parameters)[:2] == ["module", "query"]
