"""Model objects in runs: their digests, their adapters, and what goes on with what."""

from __future__ import annotations

import copy
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import hallutrace
from conftest import RUN_OPTIONS, Extract, Notes
from extraction.test_in_memory import check_equal, state_of
from hallutrace import ExtractConfig, extract
from hallutrace.errors import IdentityError, InputError, ModelError
from hallutrace.model.object_digest import digest_object
from hallutrace.store.folder import Run
from model.test_adapters import save_lora
from tiny_models import save_tiny, tiny_tokenizer

needs_peft = pytest.mark.skipif(
    importlib.util.find_spec("peft") is None, reason="peft is not installed"
)


@pytest.fixture
def model(checkpoint: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(checkpoint)


@pytest.fixture
def tokenizer(checkpoint: Path) -> Any:
    return AutoTokenizer.from_pretrained(checkpoint)


@pytest.fixture
def run_object(questions: Path, tmp_path: Path) -> Callable[..., Any]:
    """Extracts questions with a model object, into the folder `object`."""

    def run(given: Any, tokenizer: Any, reporter: Any = None, **options: Any) -> Any:
        chosen = {"questions": str(questions), "out": tmp_path / "object"} | RUN_OPTIONS | options
        config = ExtractConfig.from_options(chosen)
        return extract(config, reporter, model=given, tokenizer=tokenizer)

    return run


def test_a_run_of_an_object_is_that_of_its_folder(
    model: Any, tokenizer: Any, run_object: Any, run_extract: Extract, checkpoint: Path
) -> None:
    model.train()
    before = state_of(model)
    ours = hallutrace.open(run_object(model, tokenizer).folder)
    assert state_of(model) == before
    check_equal(list(ours), list(hallutrace.open(run_extract().folder)))
    identity = ours.manifest.identity["model"]
    assert identity["name"] == str(checkpoint)
    assert identity["commit"] == digest_object(model, tokenizer)


def test_a_run_goes_on_with_the_same_weights_alone(
    model: Any, tokenizer: Any, run_object: Any, checkpoint: Path
) -> None:
    assert run_object(model, tokenizer, limit=2).new_traces == 2
    # The same weights, loaded anew.
    again = AutoModelForCausalLM.from_pretrained(checkpoint)
    assert run_object(again, tokenizer, limit=2).new_traces == 0
    with torch.no_grad():
        again.model.layers[2].mlp.down_proj.weight[3, 5] += 1e-3
    with pytest.raises(IdentityError, match=r"\(model\.commit is .object-"):
        run_object(again, tokenizer, limit=2)


def test_the_digest_covers_what_decides_a_trace(model: Any, tokenizer: Any) -> None:
    digests = {digest_object(model, tokenizer)}

    def is_new(changed: Any, with_tokenizer: Any = tokenizer) -> bool:
        before = len(digests)
        digests.add(digest_object(changed, with_tokenizer))
        return len(digests) == before + 1

    assert not is_new(copy.deepcopy(model).train())
    chatty = copy.deepcopy(tokenizer)
    chatty.chat_template = "{{ messages[0].content }}"
    assert is_new(model, chatty)
    other = copy.deepcopy(model)
    other.config.rms_norm_eps *= 2
    assert is_new(other)
    other = copy.deepcopy(model)
    other.model.rotary_emb.inv_freq *= 2  # a buffer that no checkpoint has
    assert is_new(other)
    assert is_new(copy.deepcopy(model).to(torch.bfloat16))
    other = copy.deepcopy(model)
    first, second = other.model.layers[0].mlp, other.model.layers[1].mlp
    first.up_proj, second.up_proj = second.up_proj, first.up_proj
    assert is_new(other)


def test_half_an_object_is_refused(model: Any, tokenizer: Any, run_object: Any) -> None:
    with pytest.raises(InputError, match="Expected `model` and `tokenizer`, got no `tokenizer`"):
        run_object(model, None)
    with pytest.raises(InputError, match="Expected `model` and `tokenizer`, got no `model`"):
        run_object(None, tokenizer)
    for field, value in (("model", "gpt2"), ("dtype", "float16"), ("adapter", "lora")):
        with pytest.raises(InputError, match=f"beside `model`, got `{field}`"):
            run_object(model, tokenizer, **{field: value})


def test_the_template_of_the_small_model_is_its_own(
    model: Any, tokenizer: Any, run_object: Any
) -> None:
    """Another model is asked in the general way, though no name was given."""
    traces = hallutrace.open(run_object(model, tokenizer, limit=1).folder)
    assert traces[0].prompt.startswith("Question: who wrote?\nAnswer:")


def test_notes_of_a_foreign_tokenizer_are_told(model: Any, run_object: Any) -> None:
    notes = Notes()
    foreign = tiny_tokenizer()
    foreign.eos_token = "<pad>"
    run_object(model, foreign, notes, limit=1)
    assert any("the tokenizer of another model" in note for note in notes.notes)


@pytest.fixture
def lora(checkpoint: Path, tmp_path: Path) -> Path:
    return save_lora(tmp_path / "lora", checkpoint)


@needs_peft
def test_an_adapted_object_gives_the_traces_of_its_folders(
    model: Any, tokenizer: Any, lora: Path, run_extract: Extract, questions: Path
) -> None:
    from peft import PeftModel

    adapted = PeftModel.from_pretrained(model, lora)
    stored = list(hallutrace.open(run_extract(adapter=str(lora), shard_size=500).folder))
    prompts = [trace.prompt for trace in stored]
    options: Any = {"max_new_tokens": 6, "batch_size": 2}
    before = state_of(adapted)
    traces = hallutrace.trace(adapted, tokenizer, prompts, **options)
    assert state_of(adapted) == before
    arrays = [trace.tokens.tolist() for trace in stored]
    assert [trace.tokens.tolist() for trace in traces] == arrays
    for ours, theirs in zip(traces, stored, strict=True):
        assert ours.logprob.tobytes() == theirs.logprob.tobytes()
        assert ours.hidden(2).tobytes() == theirs.hidden(2).tobytes()
        assert ours.layer(1).weights.tobytes() == theirs.layer(1).weights.tobytes()
        assert ours.marginals.entropy.tobytes() == theirs.marginals.entropy.tobytes()


@needs_peft
def test_adapters_act_as_the_object_has_them(
    model: Any, tokenizer: Any, lora: Path, checkpoint: Path, tmp_path: Path
) -> None:
    from peft import PeftModel

    adapted = PeftModel.from_pretrained(model, lora, adapter_name="first")
    other = save_lora(tmp_path / "second", checkpoint, lora_alpha=64)
    adapted.load_adapter(other, adapter_name="second")
    plain = AutoModelForCausalLM.from_pretrained(checkpoint)

    def logprobs(asked: Any) -> bytes:
        return hallutrace.trace(asked, tokenizer, ["who?"], ["an answer"])[0].logprob.tobytes()

    adapted.set_adapter("first")
    first, digest = logprobs(adapted), digest_object(adapted.get_base_model(), tokenizer)
    adapted.set_adapter("second")
    assert logprobs(adapted) != first
    assert digest_object(adapted.get_base_model(), tokenizer) != digest
    with adapted.disable_adapter():
        assert logprobs(adapted) == logprobs(plain)
        assert digest_object(adapted.get_base_model(), tokenizer) != digest
    adapted.set_adapter("first")
    assert logprobs(adapted) == first
    assert digest_object(adapted.get_base_model(), tokenizer) == digest
    adapted.merge_adapter()
    assert digest_object(adapted.get_base_model(), tokenizer) != digest


@needs_peft
def test_an_object_with_tokens_of_its_own_is_refused(model: Any, tokenizer: Any) -> None:
    from peft import PromptTuningConfig, get_peft_model

    config = PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4)
    with pytest.raises(ModelError, match="got PROMPT_TUNING in 'default'"):
        hallutrace.trace(get_peft_model(model, config), tokenizer, ["who?"])


@needs_peft
def test_an_adapter_beside_a_model_is_the_adapter_alone(
    lora: Path, run_extract: Extract, checkpoint: Path, tmp_path: Path
) -> None:
    run_extract(adapter=str(lora), limit=2)
    manifest = Run(tmp_path / "run").manifest()
    assert manifest.identity["model"]["name"] == str(lora)
    assert manifest.identity["model"]["base"]["name"] == str(checkpoint)
    # The same, by the base model that the adapter names.
    assert run_extract(model=str(lora), limit=2).new_traces == 0
    with pytest.raises(IdentityError, match=r"model\.base"):
        run_extract(limit=2)
    # Elsewhere than the adapter says.
    moved = checkpoint.rename(tmp_path / "moved")
    try:
        with pytest.raises(ModelError, match="give it as `model` beside `adapter="):
            run_extract(model=str(lora), out=tmp_path / "other")
        summary = run_extract(model=str(moved), adapter=str(lora), out=tmp_path / "other", limit=2)
        assert summary.traces == 2
    finally:
        moved.rename(checkpoint)


@needs_peft
def test_adapters_that_are_none_are_refused(
    lora: Path, run_extract: Extract, checkpoint: Path, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match=f"Expected an adapter of peft in '{checkpoint}', got no"):
        run_extract(adapter=str(checkpoint))
    with pytest.raises(ModelError, match=r"got another adapter \(.*\) - change `model`"):
        run_extract(model=str(lora), adapter=str(lora))
    wider = save_tiny(tmp_path / "gpt2", "gpt2")
    with pytest.raises(ModelError, match="lora"):
        run_extract(model=str(wider), adapter=str(lora))
