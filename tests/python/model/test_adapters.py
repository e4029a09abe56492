"""Adapters of peft on top of their models: as peft computes them, or refused."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM

from checkpoints import edit_json, save
from conftest import Extract
from hallutrace import ExtractConfig
from hallutrace.errors import IdentityError, MissingExtraError, ModelError
from hallutrace.model.loading import Loaded, load
from hallutrace.retry import Retry
from hallutrace.store.folder import Run
from tiny_models import save_tiny, tiny_tokenizer, tiny_tokens

has_peft = importlib.util.find_spec("peft") is not None
needs_peft = pytest.mark.skipif(not has_peft, reason="peft is not installed")


def save_lora(folder: Path, base: Path, **options: Any) -> Path:
    """A random LoRA adapter of a model, with weights that count."""
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=4,
        target_modules=["q_proj", "v_proj"],
        init_lora_weights=False,
        task_type="CAUSAL_LM",
        **options,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        get_peft_model(AutoModelForCausalLM.from_pretrained(base), config).save_pretrained(folder)
    return folder


def write_adapter(folder: Path, base: Any) -> Path:
    """The configuration of an adapter, without peft."""
    folder.mkdir()
    about = {"peft_type": "LORA", "base_model_name_or_path": base, "r": 4}
    (folder / "adapter_config.json").write_text(json.dumps(about))
    (folder / "adapter_model.safetensors").write_bytes(b"")
    return folder


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return save_tiny(tmp_path / "base")


def loaded(folder: Path, **options: Any) -> Loaded:
    return load(ExtractConfig(model=str(folder), device="cpu", **options))


def refused(folder: Path) -> str:
    with pytest.raises(ModelError) as caught:
        load(ExtractConfig(model=str(folder), device="cpu"), Retry())
    return str(caught.value)


@torch.no_grad()
def logits(model: Any) -> torch.Tensor:
    return model(tiny_tokens(2)).logits


@needs_peft
@pytest.mark.parametrize("options", [{}, {"use_dora": True}, {"modules_to_save": ["lm_head"]}])
def test_an_adapter_gives_the_logits_of_peft(
    options: dict[str, Any], base: Path, tmp_path: Path
) -> None:
    from peft import PeftModel

    folder = save_lora(tmp_path / "lora", base, **options)
    found = loaded(folder)
    own = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), folder).eval()
    assert torch.equal(logits(found.model), logits(own))
    merged = logits(own.merge_and_unload())
    torch.testing.assert_close(logits(found.model), merged, rtol=0, atol=1e-4)
    plain = loaded(base)
    assert (logits(plain.model) - merged).abs().max() > 0.1
    assert not found.model.training
    assert found.base == {"name": str(base), "commit": plain.commit}
    assert found.commit != plain.commit


@needs_peft
def test_a_run_with_an_adapter_is_of_both(run_extract: Extract, base: Path, tmp_path: Path) -> None:
    folder = save_lora(tmp_path / "lora", base)
    summary = run_extract(model=str(folder), limit=2)
    assert (summary.traces, summary.failures) == (2, 0)
    identity = Run(tmp_path / "run").manifest().identity["model"]
    assert identity["name"] == str(folder)
    assert identity["base"]["name"] == str(base)
    edit_json(base / "generation_config.json", top_k=7)
    with pytest.raises(IdentityError, match=r"model\.base\.commit is "):
        run_extract(model=str(folder), limit=2)


@needs_peft
def test_the_tokenizer_of_an_adapter_comes_first(base: Path, tmp_path: Path) -> None:
    folder = save_lora(tmp_path / "lora", base)
    assert loaded(folder).tokenizer.chat_template is None
    tiny_tokenizer(chat=True).save_pretrained(folder)
    assert loaded(folder).tokenizer.chat_template is not None


@needs_peft
def test_an_adapter_on_a_quantised_model(base: Path, tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes")
    folder = save_lora(tmp_path / "lora", base)
    found = loaded(folder, quantization="int8")
    assert found.quantization == "int8"
    whole = logits(loaded(folder).model)
    deviation = (logits(found.model) - whole).abs().max()
    assert 0 < deviation < 0.5 * (logits(loaded(base).model) - whole).abs().max()


@needs_peft
def test_adapters_that_do_not_fit_are_refused(base: Path, tmp_path: Path) -> None:
    folder = save_lora(tmp_path / "lora", base)
    weights = load_file(folder / "adapter_model.safetensors")
    name = min(weights)
    save_file(
        {key: weights[key] for key in weights if key != name},
        folder / "adapter_model.safetensors",
    )
    assert "got none for base_model.model.model.layers.0" in refused(folder)
    save_file(weights, folder / "adapter_model.safetensors")
    config = AutoConfig.from_pretrained(base)
    config.num_hidden_layers, config.layer_types = 2, config.layer_types[:2]
    fewer = save(AutoModelForCausalLM.from_config(config), tmp_path / "fewer")
    edit_json(folder / "adapter_config.json", base_model_name_or_path=str(fewer))
    error = refused(folder)
    assert "that the base model has no place for: base_model.model.model.layers.2" in error
    for architecture in ("gpt2", "olmo2"):
        other = save_tiny(tmp_path / architecture, architecture)
        edit_json(folder / "adapter_config.json", base_model_name_or_path=str(other))
        assert str(folder) in refused(folder)
    edit_json(folder / "adapter_config.json", base_model_name_or_path=str(base))
    (folder / "adapter_model.safetensors").write_bytes(b"\x08")
    assert "got adapter_model.safetensors: " in refused(folder)
    (folder / "adapter_model.safetensors").unlink()
    assert "got no adapter_model.safetensors" in refused(folder)


@needs_peft
def test_adapters_that_add_tokens_are_refused(base: Path, tmp_path: Path) -> None:
    from peft import PromptTuningConfig, get_peft_model

    config = PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4)
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), config)
    model.save_pretrained(tmp_path / "prompt")
    assert "got PROMPT_TUNING in " in refused(tmp_path / "prompt")


def test_without_peft_the_extra_is_named(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *_: None if name == "peft" else find(name, *_)
    )
    folder = write_adapter(tmp_path / "lora", str(base))
    with pytest.raises(MissingExtraError) as caught:
        loaded(folder)
    assert str(caught.value) == (
        f"Expected the package `peft` for the adapter {folder}, got no such package - "
        'pip install "hallutrace[adapters]"'
    )


@pytest.mark.parametrize(
    ("where", "told"),
    [
        (None, "got none under base_model_name_or_path"),
        (7, "got none under base_model_name_or_path"),
        ("/no/such/folder", "at /no/such/folder, got no such folder"),
        ("./none", "at ./none, got no such folder"),
        ("a/b/c", "at a/b/c, got no such folder"),
        ("owner/none", "'owner/none, the base model of "),
    ],
)
def test_a_base_that_is_not_there_is_named(where: Any, told: str, tmp_path: Path) -> None:
    assert told in refused(write_adapter(tmp_path / "lora", where))


def test_a_model_and_an_adapter_in_one_folder_are_refused(base: Path, tmp_path: Path) -> None:
    folder = write_adapter(tmp_path / "lora", str(base))
    assert "got another adapter" in refused(write_adapter(tmp_path / "second", str(folder)))
    shutil.copy(folder / "adapter_config.json", base)
    assert f"Expected a model or an adapter, got both in {base}" in refused(base)


@pytest.mark.parametrize("content", ["{", "[]", "7", ""])
def test_a_damaged_adapter_is_named(content: str, base: Path, tmp_path: Path) -> None:
    folder = write_adapter(tmp_path / "lora", str(base))
    (folder / "adapter_config.json").write_text(content)
    error = refused(folder)
    assert f"Expected the configuration of an adapter in {folder}" in error
