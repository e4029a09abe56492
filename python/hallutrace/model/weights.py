"""The weights of a checkpoint in memory, as transformers loads them, and nothing made up."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from hallutrace.errors import MissingExtraError, ModelError
from hallutrace.model.adapters import named, with_adapter
from hallutrace.model.checkpoint import Checkpoint
from hallutrace.model.library_errors import essence
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
    """The model of a checkpoint, adapter included, in eval mode on its device.

    Only what was asked for is passed on: with an option of ``from_pretrained`` that is not given,
    the checkpoint itself decides.

    Args:
        checkpoint: what to load.
        dtype: torch's name of a floating point type; ``auto`` is the checkpoint's.
        quantization: on the fly: ``none``, ``int8`` or ``nf4``.
        device: where it goes, if there is no device map.
        device_map: of accelerate.
        attention: the implementation that generation uses; ``auto`` is transformers' choice.
        note: told of what was in the checkpoint and found no place.

    Raises:
        ModelError: weights that are missing or of another shape, an adapter that does not fit.
        MissingExtraError: a package that is not installed.
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
    elif is_quantized and not _is_where_transformers_loads(device):
        # Quantised weights are often packed for their device, and cannot be moved afterwards.
        options["device_map"] = device
    bar = no_gguf_bar() if checkpoint.model.gguf is not None else nullcontext()
    with bar, _attention_refused(attention, checkpoint.name):
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
    is_both = all((folder / name).is_file() for name in (WEIGHTS, INDEX))
    if is_both and checkpoint.model.gguf is None:
        note(f"{folder} holds {WEIGHTS} and an index of shards: the model is that of {WEIGHTS}")
    if device_map is None and not is_quantized:
        model = model.to(device)
    if checkpoint.adapter is not None:
        model = with_adapter(model, checkpoint.adapter, checkpoint.name)
    return model.eval()


@contextmanager
def _attention_refused(attention: str, name: str) -> Iterator[None]:
    """Within it, what transformers says of an attention that was asked for names the option.

    Raises:
        ModelError: it is not installed, or the model does not support it.
    """
    try:
        yield
    except (ImportError, ValueError) as error:
        if attention == "auto" or "attention" not in str(error).lower():
            raise
        raise ModelError(
            f"Expected an attention implementation that {name} can be used with here, got "
            f"{attention} ({essence(error)}) - use --attn-implementation auto, or install what it "
            "needs"
        ) from None


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
