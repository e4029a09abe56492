"""Models are loaded as transformers loads them, whole or not at all."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from checkpoints import (
    edit_json,
    edit_weights,
    save_bitsandbytes,
    save_fp8,
    save_mxfp4,
    save_with_code,
)
from conftest import Extract, write_lines
from hallutrace import ExtractConfig
from hallutrace.errors import IdentityError, MissingExtraError, ModelError
from hallutrace.model.files import ModelName
from hallutrace.model.loading import Loaded, load, load_tokenizer
from hallutrace.retry import Retry
from hallutrace.store.folder import Run
from tiny_models import (
    EOS,
    MULTIMODAL,
    PAD,
    VOCABULARY,
    save_tiny,
    tiny_model,
    tiny_tokenizer,
    tiny_tokens,
)


@dataclass
class Said:
    """Loads models, and keeps what is said of them."""

    notes: list[str] = field(default_factory=list)

    def load(self, folder: Path | str, **options: Any) -> Loaded:
        config = ExtractConfig(model=str(folder), device="cpu", **options)
        return load(config, Retry(note=self.notes.append))

    def refuse(self, folder: Path | str, **options: Any) -> str:
        with pytest.raises((ModelError, MissingExtraError)) as caught:
            self.load(folder, **options)
        return str(caught.value)


@pytest.fixture
def said() -> Said:
    return Said()


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """A checkpoint that a test may change."""
    return save_tiny(tmp_path / "tiny")


@torch.no_grad()
def logits(model: Any) -> torch.Tensor:
    return model(tiny_tokens(2)).logits


# Quantised checkpoints --------------------------------------------------------------------------

QUANTISED: dict[str, tuple[Callable[[Path], Path], str]] = {
    "int8": (lambda folder: save_bitsandbytes(folder, "int8"), "bitsandbytes int8"),
    "int8 in bfloat16": (
        lambda folder: save_bitsandbytes(folder, "int8", torch.bfloat16),
        "bitsandbytes int8",
    ),
    "nf4": (lambda folder: save_bitsandbytes(folder, "nf4"), "bitsandbytes nf4"),
    "fp8": (save_fp8, "fp8"),
    "mxfp4": (save_mxfp4, "mxfp4"),
}


@pytest.mark.parametrize("kind", QUANTISED)
def test_quantised_checkpoints_give_the_logits_of_transformers(
    kind: str, said: Said, tmp_path: Path
) -> None:
    if kind.startswith(("int8", "nf4")):
        pytest.importorskip("bitsandbytes")
    save, name = QUANTISED[kind]
    folder = save(tmp_path / "model")
    own = logits(AutoModelForCausalLM.from_pretrained(folder))
    loaded = said.load(folder)
    assert torch.equal(logits(loaded.model), own)
    # Nothing in it is made up, so that it is the same at every start.
    assert torch.equal(logits(said.load(folder).model), own)
    assert loaded.quantization == loaded.identity()["quantization"] == name
    assert loaded.is_dequantized == (kind in ("fp8", "mxfp4"))
    assert said.notes == []


def test_a_quantised_checkpoint_takes_another_dtype(said: Said, tmp_path: Path) -> None:
    folder = save_mxfp4(tmp_path / "model")
    own = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    assert said.load(folder).dtype == "float32"
    loaded = said.load(folder, dtype="bfloat16")
    assert loaded.dtype == "bfloat16"
    assert torch.equal(logits(loaded.model), logits(own))


def test_quantising_what_is_quantised_is_refused(said: Said, tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes")
    folder = save_bitsandbytes(tmp_path, "nf4")
    assert said.refuse(folder, quantization="int8") == (
        f"Expected a checkpoint that is not quantised for `quantization='int8'`, got {folder} "
        "with bitsandbytes nf4 - use `quantization='none'`"
    )


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"quant_method": "gptq", "bits": 4, "group_size": 32}, "pip install optimum"),
        ({"quant_method": "awq", "bits": 4, "group_size": 32}, "pip install gptqmodel"),
        ({"quant_method": "aqlm"}, "pip install aqlm[gpu,cpu]"),
        ({"quant_method": "compressed-tensors", "format": "dense"}, "compressed-tensors"),
        ({"quant_method": "spqr"}, "GPU is required to run SpQR"),
        ({"quant_method": "unheard-of"}, "one quantised by 'unheard-of'"),
        ({"bits": 4}, "has no `quant_method` attribute"),
    ],
)
def test_quantised_checkpoints_that_cannot_be_read_are_refused(
    config: dict[str, Any],
    told: str,
    said: Said,
    tiny: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    edit_json(tiny / "config.json", quantization_config=config)
    assert told in said.refuse(tiny)


def test_a_checkpoint_of_bitsandbytes_names_the_extra(
    said: Said, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise ImportError("quantization requires it: `pip install -U bitsandbytes>=0.46.1`")

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", fail)
    assert said.refuse(tiny) == (
        f"Expected the package `bitsandbytes` for the checkpoint {tiny}, got no such package - "
        'pip install "hallutrace[quantization]"'
    )


def test_a_run_records_how_its_checkpoint_is_quantised(
    run_extract: Extract, tmp_path: Path
) -> None:
    folder = save_fp8(tmp_path / "model")
    summary = run_extract(model=str(folder), limit=2)
    assert (summary.traces, summary.failures) == (2, 0)
    manifest = Run(tmp_path / "run").manifest()
    assert manifest.identity["model"]["quantization"] == "fp8"
    assert manifest.facts["dequantized"] is True


# Weights ----------------------------------------------------------------------------------------


def test_missing_weights_are_refused_by_name(said: Said, tiny: Path) -> None:
    gone = {"model.layers.1.mlp.up_proj.weight", "model.norm.weight"}
    edit_weights(tiny, lambda all_: {name: all_[name] for name in all_.keys() - gone})
    assert said.refuse(tiny) == (
        f"Expected all weights of the model in {tiny}, got none for "
        "model.layers.1.mlp.up_proj.weight, model.norm.weight - download or save the checkpoint "
        "again, whole"
    )


def test_weights_of_another_shape_are_refused_by_name(said: Said, tiny: Path) -> None:
    edit_json(tiny / "config.json", intermediate_size=96)
    error = said.refuse(tiny)
    assert "model.layers.0.mlp.down_proj.weight [48, 64] instead of [48, 96]" in error
    assert error.endswith("and 4 more - use the configuration that belongs to these weights")


def test_tied_weights_are_not_missing(said: Said, tmp_path: Path) -> None:
    model = tiny_model("gpt2")
    assert model.config.tie_word_embeddings
    folder = save_tiny(tmp_path / "gpt2", "gpt2")
    assert "lm_head.weight" not in load_file(folder / "model.safetensors")
    assert torch.equal(logits(said.load(folder).model), logits(model))
    assert said.notes == []


def test_unexpected_weights_are_said(said: Said, tiny: Path) -> None:
    more = {f"value_head.{at}.weight": torch.ones(2, 2) for at in range(7)}
    edit_weights(tiny, lambda all_: all_ | more)
    loaded = said.load(tiny)
    assert torch.equal(logits(loaded.model), logits(tiny_model("qwen3")))
    assert said.notes == [
        f"Left out weights in {tiny} that the model has no place for: value_head.0.weight, "
        "value_head.1.weight, value_head.2.weight, value_head.3.weight, value_head.4.weight and 2 "
        "more"
    ]


@pytest.mark.parametrize("kept", [40, 4000])
def test_a_truncated_file_is_named(kept: int, said: Said, tiny: Path) -> None:
    weights = tiny / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:kept])
    error = said.refuse(tiny)
    assert error.startswith(f"Expected whole files in {tiny}, got model.safetensors: ")
    assert error.endswith(" - download or save the checkpoint again")


def test_a_shard_that_is_not_there_is_named(said: Said, tiny: Path) -> None:
    tiny_model("qwen3").save_pretrained(tiny, max_shard_size="50KB")
    (tiny / "model.safetensors").unlink()
    shards = sorted(tiny.glob("model-*.safetensors"))
    assert len(shards) > 2
    assert torch.equal(logits(said.load(tiny).model), logits(tiny_model("qwen3")))
    shards[1].unlink()
    assert shards[1].name in said.refuse(tiny)


def test_an_index_that_leaves_a_weight_out_is_refused(said: Said, tiny: Path) -> None:
    tiny_model("qwen3").save_pretrained(tiny, max_shard_size="50KB")
    (tiny / "model.safetensors").unlink()
    shard = sorted(tiny.glob("model-*.safetensors"))[0]
    weights = load_file(shard)
    name = min(weights)
    save_file({key: weights[key] for key in weights if key != name}, shard, {"format": "pt"})
    assert name in said.refuse(tiny)


def test_a_file_beside_shards_is_said(said: Said, tiny: Path) -> None:
    tiny_model("qwen3", seed=1).save_pretrained(tiny, max_shard_size="50KB")
    assert len(list(tiny.glob("model-*.safetensors"))) > 2
    save_tiny(tiny.parent / "other")
    shutil.copy(tiny.parent / "other" / "model.safetensors", tiny)
    loaded = said.load(tiny)
    assert torch.equal(logits(loaded.model), logits(AutoModelForCausalLM.from_pretrained(tiny)))
    assert torch.equal(logits(loaded.model), logits(tiny_model("qwen3")))
    assert said.notes == [
        f"{tiny} holds model.safetensors and an index of shards: the model is that of "
        "model.safetensors"
    ]


# dtype and device -------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", ["qwen3", MULTIMODAL])
@pytest.mark.parametrize("field", ["dtype", "torch_dtype"])
def test_a_checkpoint_in_bfloat16_is_float32_on_a_cpu(
    architecture: str, field: str, said: Said, tmp_path: Path
) -> None:
    folder = save_tiny(tmp_path / "model", architecture)
    AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).save_pretrained(folder)
    edit_json(folder / "config.json", **({"dtype": None} | {field: "bfloat16"}))
    for asked, found in (("auto", "float32"), ("bfloat16", "bfloat16"), ("float16", "float16")):
        loaded = said.load(folder, dtype=asked)
        assert loaded.dtype == found
        assert {str(weight.dtype) for weight in loaded.model.parameters()} == {f"torch.{found}"}


@pytest.mark.parametrize("device", ["mps", "meta", "cuda:99", "gpu", "", "xpu", "cpu:x"])
def test_devices_that_are_not_there_are_refused(device: str, said: Said, tiny: Path) -> None:
    with pytest.raises(ModelError, match=r"^Expected .* got .* - "):
        load(ExtractConfig(model=str(tiny), device=device))


def test_names_that_are_none_are_refused(said: Said, tiny: Path) -> None:
    for name, told in (
        ("", "got none"),
        (tiny / "model.safetensors", f"got the file {tiny}/model.safetensors"),
        ("~no-such-user/model", "no-such-user"),
        ("owner/no-such-model", "hf auth login"),
    ):
        assert told in said.refuse(name)
    assert "got 'v2' with the folder" in said.refuse(tiny, revision="v2")
    (tiny / "config.json").unlink()
    assert "config.json" in said.refuse(tiny)


# Tokenizers -------------------------------------------------------------------------------------


def test_a_model_without_a_tokenizer_is_refused(said: Said, tiny: Path) -> None:
    for path in tiny.glob("*token*"):
        path.unlink()
    error = said.refuse(tiny)
    assert f"Expected the tokenizer of {tiny}, got one of 1 tokens" in error
    assert "tokenizer.json" in error


def test_tokens_without_an_embedding_are_said(said: Said, tiny: Path) -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens(["[one]", "[two]"])
    tokenizer.add_special_tokens({"pad_token": "[pad]"})
    tokenizer.save_pretrained(tiny)
    loaded = said.load(tiny)
    assert said.notes == [
        f"The tokenizer has 3 tokens that the model has no embedding for (of {VOCABULARY + 3}, "
        f"embedding {VOCABULARY}): questions with one of them fail"
    ]
    # Padding is masked, but it is looked up.
    assert tokenizer.pad_token_id == VOCABULARY + 2
    assert loaded.pad_id == EOS


def test_the_tokenizer_of_another_model_is_said(said: Said, tiny: Path) -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.eos_token = "<unk>"
    tokenizer.save_pretrained(tiny)
    assert said.load(tiny).pad_id == PAD
    assert said.notes == [
        "The tokenizer ends a text with token 3 (<unk>), the model with 2: it may be the tokenizer "
        "of another model"
    ]


def test_a_much_smaller_vocabulary_is_said(said: Said, tmp_path: Path) -> None:
    model = tiny_model("qwen3")
    model.resize_token_embeddings(200)
    model.save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    said.load(tmp_path)
    assert said.notes == [
        "The tokenizer has 128 tokens, the model 200: it may be the tokenizer of another model"
    ]


def test_a_damaged_tokenizer_is_an_error_line(said: Said, tiny: Path) -> None:
    for content in ("{", '{"model": {"type": "BPE"}}', "[]", ""):
        (tiny / "tokenizer.json").write_text(content)
        assert str(tiny) in said.refuse(tiny)


# Code of a checkpoint's own ---------------------------------------------------------------------


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of its own for the copies of code that transformers makes."""
    monkeypatch.setattr(
        "transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules")
    )


@pytest.mark.usefixtures("modules")
def test_code_runs_when_told_to_alone(said: Said, tmp_path: Path) -> None:
    folder = save_with_code(tmp_path / "own")
    assert said.refuse(folder) == (
        f"Expected a model whose code is part of transformers, got '{folder}' with code of its "
        "own - read that code, and run it with `trust_remote_code=True` if you trust it"
    )
    loaded = said.load(folder, trust_remote_code=True)
    assert type(loaded.model).__name__ == "OwnModel"
    identity = loaded.identity()
    assert identity["trust_remote_code"] is True
    assert len(identity["code"]) == 16
    assert torch.equal(logits(loaded.model), logits(tiny_model("qwen3")))
    again = load_tokenizer(ModelName(str(folder), trust_remote_code=True))
    assert isinstance(again, PreTrainedTokenizerFast)


def test_code_that_transformers_stands_in_for_is_said(said: Said, tiny: Path) -> None:
    edit_json(tiny / "config.json", auto_map={"AutoModelForCausalLM": "own.Own"})
    loaded = said.load(tiny)
    assert type(loaded.model).__name__ == "Qwen3ForCausalLM"
    assert loaded.identity()["code"] is None
    assert said.notes == [
        f"{tiny} comes with code of its own (AutoModelForCausalLM), which did not run: classes of "
        "transformers are used; `trust_remote_code=True` would run it"
    ]


# What libraries raise ---------------------------------------------------------------------------


def test_no_memory_is_told_as_such(said: Said, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for error in (
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"),
        MemoryError(),
    ):

        def fail(*_: Any, error: BaseException = error, **__: Any) -> None:
            raise error

        monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", fail)
        message = said.refuse(tiny)
        assert message.startswith(f"Expected enough memory for '{tiny}' on cpu, got: {error}")
        assert "`quantization='int8'`" in message


def test_a_panic_of_an_extension_is_an_error_line(
    said: Said, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = type("PanicException", (BaseException,), {})

    def panic(*_: Any, **__: Any) -> None:
        raise kind("called `Option::unwrap()` on a `None` value")

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", panic)
    assert "got PanicException for" in said.refuse(tiny)


def test_the_end_of_a_long_message_is_kept(
    said: Said, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise ValueError("It cannot be loaded. " + "Because of this. " * 200 + "Set `fix=True`.")

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", fail)
    error = said.refuse(tiny)
    assert len(error) < 1000
    assert "It cannot be loaded." in error
    assert "Set `fix=True`." in error


def test_an_interruption_is_none_of_them(
    said: Said, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", stop)
    with pytest.raises(KeyboardInterrupt):
        said.load(tiny)


# Identity ---------------------------------------------------------------------------------------


def test_a_changed_weight_in_the_middle_is_another_model(run_extract: Extract, tiny: Path) -> None:
    run_extract(model=str(tiny), limit=2)
    weights = tiny / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[len(data) // 2] ^= 1
    weights.write_bytes(data)
    with pytest.raises(IdentityError, match=r"model\.commit is "):
        run_extract(model=str(tiny), limit=2)


@pytest.mark.parametrize(
    "name",
    [
        "merges.txt",
        "tokenizer.model",
        "qwen.tiktoken",
        "chat_template.jinja",
        "generation_config.json",
        "modeling_own.py",
        "additional_chat_templates/tool.jinja",
    ],
)
def test_every_file_that_matters_is_in_the_identity(name: str, said: Said, tiny: Path) -> None:
    before = said.load(tiny).commit
    path = tiny / name
    path.parent.mkdir(exist_ok=True)
    text = path.read_text() if path.exists() else ""
    path.write_text(text + "\n")
    after = said.load(tiny).commit
    assert before.startswith("folder-") and len(before) == len("folder-") + 16
    assert before != after


def test_a_commit_of_the_hub_is_recorded(
    said: Said, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commits = {"main": "a" * 40, "v2": "b" * 40}
    repository = tmp_path / "models--owner--name"
    for seed, (branch, commit) in enumerate(commits.items()):
        save_tiny(repository / "snapshots" / commit, seed=seed)
        (repository / "refs").mkdir(exist_ok=True)
        (repository / "refs" / branch).write_text(commit)
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("transformers.utils.hub.constants.HF_HUB_CACHE", str(tmp_path))
    for seed, branch in enumerate(commits):
        loaded = said.load("owner/name", revision=branch)
        assert loaded.commit == commits[branch]
        assert torch.equal(logits(loaded.model), logits(tiny_model("qwen3", seed)))
    assert said.load("owner/name").commit == commits["main"]


def test_weights_that_are_written_to_end_the_run(
    run_extract: Extract, tiny: Path, tmp_path: Path
) -> None:
    class Writes:
        """Writes to the weights once the first batch is done."""

        def __getattr__(self, name: str) -> Any:
            return lambda *_: None

        def advance(self, *_: int) -> None:
            weights = tiny / "model.safetensors"
            with weights.open("r+b") as file:
                file.seek(weights.stat().st_size // 2)
                file.write(bytes(1000))

    with pytest.raises(ModelError, match=r"Expected the weights in .* got writes to model"):
        run_extract(Writes(), model=str(tiny))
    assert Run(tmp_path / "run").records() == []
    # A file that takes their place leaves those in use as they are.
    shutil.rmtree(tmp_path / "run")

    class Replaces(Writes):
        def advance(self, *_: int) -> None:
            shutil.copy(tiny / "model.safetensors", tiny / "new")
            (tiny / "new").replace(tiny / "model.safetensors")

    assert run_extract(Replaces(), model=str(tiny)).traces == 7


def test_a_folder_that_changes_while_it_is_loaded_is_refused(
    said: Said, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = AutoModelForCausalLM.from_pretrained

    def meanwhile(*arguments: Any, **options: Any) -> Any:
        model = real(*arguments, **options)
        (tiny / "vocab.txt").write_text("late")
        return model

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", meanwhile)
    assert "got changes in vocab.txt" in said.refuse(tiny)


def test_the_attention_of_generation_is_recorded(run_extract: Extract, tmp_path: Path) -> None:
    run_extract(attn_implementation="eager", limit=2)
    assert Run(tmp_path / "run").manifest().identity["decoding"]["attention"] == "eager"
    with pytest.raises(IdentityError, match=r'\(decoding\.attention is "eager", asked "sdpa"\)'):
        run_extract(limit=2)
    # Nothing is generated where answers exist, and a replay computes eager attention.
    rows = [{"question": "who?", "response": "an answer"}]
    given = {"responses": str(write_lines(tmp_path / "given.jsonl", rows))}
    run_extract(**given, out=tmp_path / "given", attn_implementation="eager")
    assert "attention" not in Run(tmp_path / "given").manifest().identity["decoding"]
    assert run_extract(**given, out=tmp_path / "given").new_traces == 0


@pytest.mark.skipif(
    importlib.util.find_spec("flash_attn") is not None, reason="flash_attn is installed"
)
def test_an_attention_that_is_not_there_is_told(checkpoint: Path) -> None:
    told = rf"that {checkpoint} can be used with here, got flash_attention_2 \(FlashAttention2 .*"
    with pytest.raises(ModelError, match=told + "- use `attn_implementation='auto'`"):
        load(ExtractConfig(model=str(checkpoint), attn_implementation="flash_attention_2"))
