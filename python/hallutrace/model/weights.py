"""The weights of a checkpoint in memory, as transformers loads them, and nothing made up."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from hallutrace.errors import MissingExtraError, ModelError
from hallutrace.model.checkpoint import Checkpoint, Files

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
NAMED = 5  # weights that a message names


def load_weights(
    checkpoint: Checkpoint,
    *,
    dtype: str,
    quantization: str,
    device: str,
    device_map: str | None,
    note: Callable[[str], None],
) -> Any:
    """The model of a checkpoint, adapter included, in eval mode on its device.

    Only what was asked for is passed on: with an option of ``from_pretrained`` that is not given,
    the checkpoint itself decides.

    Args:
        checkpoint: what to load.
        dtype: torch's name of a floating point type; ``auto`` is the checkpoint's.
        quantization: on the fly: ``none``, ``int8`` or ``nf4``.
        device: where it goes, if there is no device map.
        device_map: of accelerate.
        note: told of what was in the checkpoint and found no place.

    Raises:
        ModelError: weights that are missing or of another shape, an adapter that does not fit.
        MissingExtraError: a package that is not installed.
    """
    import torch
    from transformers import AutoModelForCausalLM

    options: dict[str, Any] = dict(checkpoint.model.hub)
    if dtype != "auto":
        options["dtype"] = getattr(torch, dtype)
    if quantization != "none":
        options["quantization_config"] = _bitsandbytes(quantization, options.get("dtype"))
    is_quantized = quantization != "none" or checkpoint.quantization is not None
    if device_map is not None:
        options["device_map"] = device_map
    elif is_quantized and not _is_where_transformers_loads(device):
        # Quantised weights are often packed for their device, and cannot be moved afterwards.
        options["device_map"] = device
    model, info = AutoModelForCausalLM.from_pretrained(
        checkpoint.model.where,
        trust_remote_code=checkpoint.trust_remote_code,
        output_loading_info=True,
        # What has another shape is refused below, by name.
        ignore_mismatched_sizes=True,
        **options,
    )
    check_loaded(checkpoint.model.where, info, note)
    folder = Path(checkpoint.model.where)
    if all((folder / name).is_file() for name in (WEIGHTS, INDEX)):
        note(f"{folder} holds {WEIGHTS} and an index of shards: the model is that of {WEIGHTS}")
    if device_map is None and not is_quantized:
        model = model.to(device)
    if checkpoint.adapter is not None:
        model = with_adapter(model, checkpoint.adapter, checkpoint.name)
    return model.eval()


def check_loaded(where: str, info: dict[str, Any], note: Callable[[str], None]) -> None:
    """Refuses a model some of whose weights are not those of its checkpoint.

    transformers fills what is missing with random numbers and logs a report.

    Args:
        where: folder or repository.
        info: what ``from_pretrained(output_loading_info=True)`` gives.
        note: told of weights that have no place in the model.

    Raises:
        ModelError: naming the weights.
    """
    if info["missing_keys"]:
        raise ModelError(
            f"Expected all weights of the model in {where}, got none for "
            f"{named(info['missing_keys'])} - download or save the checkpoint again, whole"
        )
    if info["mismatched_keys"]:
        shapes = [
            f"{key} {list(there)} instead of {list(here)}"
            for key, there, here in info["mismatched_keys"]
        ]
        raise ModelError(
            f"Expected weights in {where} of the shapes that its config.json says, got "
            f"{named(shapes)} - use the configuration that belongs to these weights"
        )
    if info["unexpected_keys"]:
        note(
            f"Left out weights in {where} that the model has no place for: "
            f"{named(info['unexpected_keys'])}"
        )


def with_adapter(model: Any, adapter: Files, name: str) -> Any:
    """A model with an adapter of peft in its layers, not merged: what peft itself computes.

    Args:
        model: the base model; it is changed.
        adapter: files of the adapter.
        name: of the adapter, as it was asked for.

    Raises:
        ModelError: an adapter that does not fit, or is of a kind that cannot be traced.
    """
    from peft import PeftConfig, PeftModel

    folder = Path(adapter.where)
    if folder.is_dir() and not any(folder.glob("adapter_model.*")):
        raise ModelError(
            f"Expected the weights of the adapter in {folder}, got no adapter_model.safetensors - "
            "copy it there"
        )
    config = PeftConfig.from_pretrained(adapter.where, **adapter.hub)
    if config.is_prompt_learning or config.is_adaption_prompt:
        raise ModelError(
            f"Expected an adapter of weights such as LoRA, got {config.peft_type.value} in {name!r}"
            " - it adds tokens of its own, which no trace could name; choose another adapter"
        )
    adapted = PeftModel.from_pretrained(model, adapter.where, config=config, **adapter.hub)
    # Once more, for what it says: peft only warns of weights that are missing, and says nothing of
    # those that have no place in the model.
    info = adapted.load_adapter(adapter.where, "default", **adapter.hub)
    for keys, problem in (
        (info.missing_keys, "none for"),
        (info.unexpected_keys, "weights that the base model has no place for:"),
    ):
        if keys:
            raise ModelError(
                f"Expected an adapter that fits its base model {model.name_or_path}, got "
                f"{problem} {named(keys)} in {name!r} - check base_model_name_or_path in its "
                "adapter_config.json"
            )
    return adapted.get_base_model()


def damaged_file(folder: Path) -> str | None:
    """What is wrong with the first safetensors file that cannot be opened; None if all can be."""
    from safetensors import SafetensorError, safe_open

    for path in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(path, "pt"):
                pass
        except (SafetensorError, OSError) as error:
            return f"{path.name}: {error}"
    return None


def named(keys: Collection[str]) -> str:
    """The first names in order, and how many more there are."""
    names = sorted(map(str, keys))
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more


def _is_where_transformers_loads(device: str) -> bool:
    """Whether quantised weights go to that device where nothing is said."""
    import torch

    return torch.device(device).type == "cpu" and not torch.accelerator.is_available()


def _bitsandbytes(kind: str, dtype: Any) -> Any:
    if importlib.util.find_spec("bitsandbytes") is None:
        raise MissingExtraError.of("bitsandbytes", "quantization", f"--quantization {kind}")
    from transformers import BitsAndBytesConfig

    if kind == "int8":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype
    )
