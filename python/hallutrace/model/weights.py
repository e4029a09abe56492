"""Loading the weights of a checkpoint; missing weights are an error, never random numbers."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from hallutrace.errors import MissingExtraError, ModelError
from hallutrace.listed_names import first_listed
from hallutrace.model.adapters import with_adapter
from hallutrace.model.checkpoint import Checkpoint
from hallutrace.model.library_errors import essence
from hallutrace.option_names import parameter
from hallutrace.transformers_compat import no_gguf_bar, unpacked_gguf

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"


def load_weights(
    checkpoint: Checkpoint,
    *,
    dtype: str,
    quantization: str,
    device: str,
    device_map: str | None,
    attention: str,
    note: Callable[[str], None],
) -> Any:
    """Loads the model of a checkpoint with its adapter, in eval mode on its device.

    Options that were not requested are not passed to ``from_pretrained``, so that the settings of
    the checkpoint apply.

    Args:
        checkpoint: the checkpoint to load.
        dtype: torch's name of a floating point type; ``auto`` for that of the checkpoint.
        quantization: quantisation on loading: ``none``, ``int8`` or ``nf4``.
        device: the device, used without a device map.
        device_map: a device map of accelerate, such as ``auto``.
        attention: attention implementation of generation; ``auto`` for the default of transformers.
        note: called with a warning about weights that were not used.

    Returns:
        The transformers model.

    Raises:
        ModelError: weights are missing or have the wrong shape, or the adapter does not fit.
        MissingExtraError: a package is not installed.
    """
    import torch
    from transformers import AutoModelForCausalLM

    options: dict[str, Any] = dict(checkpoint.model.arguments)
    if checkpoint.model.gguf is not None:
        options |= unpacked_gguf()
    if attention != "auto":
        options["attn_implementation"] = attention
    if dtype != "auto":
        options["dtype"] = getattr(torch, dtype)
    if quantization != "none":
        options["quantization_config"] = _bitsandbytes(quantization, options.get("dtype"))
    is_quantized = quantization != "none" or checkpoint.quantization is not None
    if device_map is not None:
        options["device_map"] = device_map
    elif is_quantized and not _is_default_device(device):
        # Quantised weights are often packed for their device and cannot be moved later.
        options["device_map"] = device
    bar = no_gguf_bar() if checkpoint.model.gguf is not None else nullcontext()
    with bar, _explain_attention_error(attention, checkpoint.name):
        model, info = AutoModelForCausalLM.from_pretrained(
            checkpoint.model.location,
            trust_remote_code=checkpoint.trust_remote_code,
            output_loading_info=True,
            # check_loaded refuses other shapes with an error that names the weights.
            ignore_mismatched_sizes=True,
            **options,
        )
    check_loaded(checkpoint.model.location, info, note)
    folder = Path(checkpoint.model.location)
    has_both = all((folder / name).is_file() for name in (WEIGHTS, INDEX))
    if has_both and checkpoint.model.gguf is None:
        note(f"{folder} holds {WEIGHTS} and an index of shards: the model is that of {WEIGHTS}")
    if device_map is None and not is_quantized:
        model = model.to(device)
    if checkpoint.adapter is not None:
        model = with_adapter(model, checkpoint.adapter, checkpoint.name)
    return model.eval()


@contextmanager
def _explain_attention_error(attention: str, name: str) -> Iterator[None]:
    """A context in which an error about the requested attention implementation names the option.

    Raises:
        ModelError: the implementation is not installed, or the model does not support it.
    """
    try:
        yield
    except (ImportError, ValueError) as error:
        if attention == "auto" or "attention" not in str(error).lower():
            raise
        raise ModelError(
            f"Expected an attention implementation that {name} can be used with here, got "
            f"{attention} ({essence(error)}) - use {parameter('attn_implementation', 'auto')}, or "
            "install what it needs"
        ) from None


def check_loaded(where: str, info: dict[str, Any], note: Callable[[str], None]) -> None:
    """Raises :class:`ModelError` if weights of a model were not loaded from its checkpoint.

    The check is needed because transformers initialises missing weights randomly and only logs it.

    Args:
        where: folder or repository.
        info: loading info of ``from_pretrained(output_loading_info=True)``.
        note: called with a warning about weights that the model does not have.

    Raises:
        ModelError: weights are missing or have the wrong shape; it names them.
    """
    if info["missing_keys"]:
        raise ModelError(
            f"Expected all weights of the model in {where}, got none for "
            f"{first_listed(info['missing_keys'])} - download or save the checkpoint again, whole"
        )
    if info["mismatched_keys"]:
        shapes = [
            f"{key} {list(found)} instead of {list(expected)}"
            for key, found, expected in info["mismatched_keys"]
        ]
        raise ModelError(
            f"Expected weights in {where} of the shapes that its config.json says, got "
            f"{first_listed(shapes)} - use the configuration that belongs to these weights"
        )
    if info["unexpected_keys"]:
        note(
            f"Left out weights in {where} that the model has no place for: "
            f"{first_listed(info['unexpected_keys'])}"
        )


def damaged_file(folder: Path) -> str | None:
    """Name and error of the first safetensors file that cannot be opened; None if there is none."""
    from safetensors import SafetensorError, safe_open

    for path in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(path, "pt"):
                pass
        except (SafetensorError, OSError) as error:
            return f"{path.name}: {error}"
    return None


def _is_default_device(device: str) -> bool:
    """Whether transformers loads quantised weights to this device without a device map."""
    import torch

    return torch.device(device).type == "cpu" and not torch.accelerator.is_available()


def _bitsandbytes(kind: str, dtype: Any) -> Any:
    if importlib.util.find_spec("bitsandbytes") is None:
        raise MissingExtraError.of("bitsandbytes", "quantization", parameter("quantization", kind))
    from transformers import BitsAndBytesConfig

    if kind == "int8":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype
    )
