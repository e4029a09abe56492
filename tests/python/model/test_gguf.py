"""Models in one GGUF file: the weights that are in it, its tokenizer, its digest."""

from __future__ import annotations

import importlib.util
import string
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import hallutrace
from checkpoints import wide_model
from conftest import Extract
from hallutrace import ExtractConfig
from hallutrace.errors import IdentityError, MissingExtraError, ModelError
from hallutrace.extraction.estimate import model_shape
from hallutrace.model.files import ModelName
from hallutrace.model.loading import load
from tiny_models import BOS, EOS, PAD, UNKNOWN, VOCABULARY, tiny_tokens

needs_gguf = pytest.mark.skipif(
    importlib.util.find_spec("gguf") is None, reason="gguf is not installed"
)

# Names of a Qwen3 in transformers and in a GGUF file.
NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    **{f"self_attn.{part}_proj": f"attn_{part}" for part in "qkv"},
    **{f"self_attn.{part}_norm": f"attn_{part}_norm" for part in "qk"},
    "self_attn.o_proj": "attn_output",
    **{f"mlp.{part}_proj": f"ffn_{part}" for part in ("gate", "up", "down")},
}


def gguf_name(name: str) -> str:
    """The name of a weight in a GGUF file."""
    stem = name.removesuffix(".weight")
    if stem.startswith("model.layers."):
        number, _, part = stem.removeprefix("model.layers.").partition(".")
        return f"blk.{number}.{NAMES[part]}.weight"
    return f"{NAMES[stem]}.weight"


def save_gguf(path: Path, kind: str = "F32", chat_template: str | None = None) -> Any:
    """Saves a tiny random Qwen3 as a GGUF file; returns the model with the weights of the file."""
    from gguf import GGMLQuantizationType, GGUFWriter
    from gguf.quants import dequantize, quantize

    # transformers takes the size of a head from its defaults, not from the file.
    model, stored = wide_model(head_dim=128), GGMLQuantizationType[kind]
    config = model.config
    writer = GGUFWriter(path, "qwen3")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_vocab_size(VOCABULARY)
    characters = ["Ġ" if one == " " else one for one in " " + string.printable[:94]] + ["Ċ"]
    tokens = ["<pad>", "<bos>", "<eos>", "<unk>", *characters, "th", "an"]
    tokens += [f"<unused{at}>" for at in range(VOCABULARY - len(tokens))]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(tokens)
    writer.add_token_types([3 if token.startswith("<") and token != "<" else 1 for token in tokens])
    writer.add_token_merges(["t h", "a n"])
    writer.add_bos_token_id(BOS)
    writer.add_eos_token_id(EOS)
    writer.add_pad_token_id(PAD)
    writer.add_unk_token_id(UNKNOWN)
    if chat_template is not None:
        writer.add_chat_template(chat_template)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            values = weight.float().numpy()
            if kind == "F32" or weight.dim() == 1:
                writer.add_tensor(gguf_name(name), values)
                continue
            packed = quantize(values, stored)
            writer.add_tensor(gguf_name(name), packed, raw_dtype=stored)
            weight.copy_(torch.from_numpy(dequantize(packed, stored).astype(np.float32)))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return model


@torch.no_grad()
def logits(model: Any) -> torch.Tensor:
    return model(tiny_tokens(2)).logits


@needs_gguf
@pytest.mark.parametrize("kind", ["F32", "Q8_0", "Q4_1"])
def test_a_file_gives_the_logits_of_its_weights(kind: str, tmp_path: Path) -> None:
    whole = save_gguf(tmp_path / "tiny.gguf", kind)
    loaded = load(ExtractConfig(model=str(tmp_path / "tiny.gguf"), device="cpu"))
    assert torch.equal(logits(loaded.model), logits(whole))
    assert (loaded.dtype, loaded.quantization) == ("float32", f"gguf {kind}")
    assert loaded.eos_ids == (EOS,)
    assert loaded.commit.startswith("file-")


@needs_gguf
def test_a_run_of_a_file(run_extract: Extract, tmp_path: Path, capfd: Any) -> None:
    file = tmp_path / "tiny.gguf"
    save_gguf(file, "Q8_0", "{% for m in messages %}{{ m.content }}{% endfor %}:")
    summary = run_extract(model=str(file), chat="auto", limit=3)
    assert (summary.traces, summary.failures) == (3, 0)
    assert "onverting" not in capfd.readouterr().err  # no bar of another library
    store = hallutrace.open(summary.folder)
    assert store[0].prompt == store[0].question + ":"
    identity = store.manifest.identity["model"]
    assert (identity["name"], identity["quantization"]) == (str(file), "gguf Q8_0")
    # Its name may change, its bytes may not.
    moved = file.rename(tmp_path / "moved.gguf")
    with pytest.raises(IdentityError, match=r"\(model\.name is "):
        run_extract(model=str(moved), chat="auto", limit=3)
    moved.rename(file)
    save_gguf(file, "Q4_1", "{% for m in messages %}{{ m.content }}{% endfor %}:")
    with pytest.raises(IdentityError, match=r"model\.commit is .*model\.quantization is "):
        run_extract(model=str(file), chat="auto", limit=3)


@needs_gguf
def test_the_shape_of_a_file_is_known_without_its_weights(tmp_path: Path) -> None:
    save_gguf(tmp_path / "tiny.gguf", "Q8_0")
    shape = model_shape(ModelName(str(tmp_path / "tiny.gguf")))
    assert (shape.layers, shape.hidden_size, shape.heads, shape.value_heads) == (3, 64, 4, 2)


def test_other_files_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "tiny.gguf"
    file.write_bytes(b"<html>")
    with pytest.raises(ModelError, match="which does not begin with GGUF - download it again"):
        load(ExtractConfig(model=str(file)))
    other = tmp_path / "model.safetensors"
    other.write_bytes(b"GGUF")
    with pytest.raises(ModelError, match=r"got the file .*model\.safetensors - give the folder"):
        load(ExtractConfig(model=str(other)))


@needs_gguf
def test_a_damaged_file_is_told(tmp_path: Path) -> None:
    file = tmp_path / "tiny.gguf"
    save_gguf(file)
    file.write_bytes(file.read_bytes()[:5000])
    with pytest.raises(ModelError, match=r"tiny\.gguf"):
        load(ExtractConfig(model=str(file)))


@needs_gguf
def test_a_file_is_not_quantised_again(tmp_path: Path) -> None:
    save_gguf(tmp_path / "tiny.gguf", "Q8_0")
    with pytest.raises(ModelError, match="with gguf Q8_0 - use `quantization='none'`"):
        load(ExtractConfig(model=str(tmp_path / "tiny.gguf"), quantization="int8"))


def test_without_the_package_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.delitem(sys.modules, "gguf", raising=False)
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *_: None if name == "gguf" else find(name, *_)
    )
    file = tmp_path / "tiny.gguf"
    file.write_bytes(b"GGUF" + bytes(60))
    with pytest.raises(MissingExtraError, match=r'pip install "hallutrace\[gguf\]"'):
        load(ExtractConfig(model=str(file)))
