"""Tiny checkpoints in the formats that people publish: quantised, with an adapter, with code."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, PreTrainedModel

from tiny_models import save_tiny, tiny_config, tiny_tokenizer

BLOCK = 16
Weights = dict[str, torch.Tensor]


def edit_json(path: Path, **fields: Any) -> Path:
    """Changes fields of a JSON file; a field that is None goes."""
    content = json.loads(path.read_text()) | fields
    content = {name: value for name, value in content.items() if value is not None}
    path.write_text(json.dumps(content))
    return path


def edit_weights(folder: Path, change: Callable[[Weights], Weights]) -> Path:
    """Rewrites the weights of a checkpoint."""
    path = folder / "model.safetensors"
    save_file(change(load_file(path)), path, metadata={"format": "pt"})
    return folder


def wide_model(architecture: str = "qwen3", **fields: int) -> PreTrainedModel:
    """A tiny model of widths that quantised blocks divide, with other fields than usual."""
    config = tiny_config(architecture)
    config.update(fields)
    config.hidden_size = config.intermediate_size = 64
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()


def save_bitsandbytes(folder: Path, kind: str, dtype: torch.dtype = torch.float32) -> Path:
    """A checkpoint that bitsandbytes quantised and saved: ``int8`` or ``nf4``."""
    from transformers import BitsAndBytesConfig

    wide_model().save_pretrained(folder / "whole")
    options: dict[str, Any] = (
        {"load_in_8bit": True}
        if kind == "int8"
        else {"load_in_4bit": True, "bnb_4bit_quant_type": kind}
    )
    model = AutoModelForCausalLM.from_pretrained(
        folder / "whole", quantization_config=BitsAndBytesConfig(**options), dtype=dtype
    )
    return save(model, folder / kind)


def save_fp8(folder: Path) -> Path:
    """Weights of projections in float8 with a scale for each block, as DeepSeek publishes them."""

    def quantised(weights: Weights) -> Weights:
        found: Weights = {}
        for name, weight in weights.items():
            if "proj.weight" not in name:
                found[name] = weight
                continue
            rows, columns = weight.shape
            blocks = weight.reshape(rows // BLOCK, BLOCK, columns // BLOCK, BLOCK)
            scale = blocks.abs().amax((1, 3)) / 448
            scaled = (blocks / scale[:, None, :, None]).reshape(weight.shape)
            found[name] = scaled.to(torch.float8_e4m3fn)
            found[f"{name}_scale_inv"] = scale
        return found

    about = {"activation_scheme": "dynamic", "weight_block_size": [BLOCK, BLOCK]}
    return _published(folder, wide_model(), quantised, quant_method="fp8", **about)


def save_mxfp4(folder: Path) -> Path:
    """Experts in 4 bits with a scale for 32 values, as gpt-oss is published."""
    try:
        torch.accelerator.current_accelerator()
    except RuntimeError:  # torch 2.6, which transformers asks for it when it reads mxfp4
        pytest.skip("transformers reads mxfp4 with this torch on an accelerator alone")

    def quantised(weights: Weights) -> Weights:
        rng = torch.Generator().manual_seed(0)
        found: Weights = {}
        for name, weight in weights.items():
            if not name.endswith(("experts.gate_up_proj", "experts.down_proj")):
                found[name] = weight
                continue
            experts, inputs, outputs = weight.shape
            shape = (experts, outputs, inputs // 32)
            found[f"{name}_blocks"] = torch.randint(
                0, 256, (*shape, 16), dtype=torch.uint8, generator=rng
            )
            found[f"{name}_scales"] = torch.randint(
                120, 125, shape, dtype=torch.uint8, generator=rng
            )
        return found

    return _published(folder, wide_model("gpt_oss"), quantised, quant_method="mxfp4")


def _published(
    folder: Path, model: PreTrainedModel, change: Callable[[Weights], Weights], **config: Any
) -> Path:
    edit_weights(save(model, folder), change)
    edit_json(folder / "config.json", quantization_config=config)
    return folder


def save(model: PreTrainedModel, folder: Path) -> Path:
    """Saves a model with the tiny tokenizer."""
    model.save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def save_with_code(folder: Path) -> Path:
    """A model whose classes come with it."""
    save_tiny(folder)
    (folder / "configuration_own.py").write_text(
        "from transformers import Qwen3Config\n\n\nclass OwnConfig(Qwen3Config):\n"
        '    model_type = "own"\n'
    )
    (folder / "modeling_own.py").write_text(
        "from transformers import Qwen3ForCausalLM\nfrom .configuration_own import OwnConfig\n\n\n"
        "class OwnModel(Qwen3ForCausalLM):\n    config_class = OwnConfig\n"
    )
    edit_json(
        folder / "config.json",
        model_type="own",
        architectures=["OwnModel"],
        auto_map={
            "AutoConfig": "configuration_own.OwnConfig",
            "AutoModelForCausalLM": "modeling_own.OwnModel",
        },
    )
    return folder
