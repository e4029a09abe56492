"""Loading a model and its tokenizer, and the facts of it that the rest needs."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hallutrace.config import ExtractConfig
from hallutrace.demo import MODEL_FOLDER, PROMPT_TEMPLATE
from hallutrace.errors import MissingExtraError, ModelError
from hallutrace.one_at_a_time import one_at_a_time
from hallutrace.patience import Patience

if TYPE_CHECKING:
    import torch

_WHOLE_FILE = 64 * 2**20  # files up to this size are digested whole
_EDGE = 2**20  # of larger ones, as much from either end


@dataclass(frozen=True)
class Loaded:
    """A model ready to generate and to be replayed.

    Attributes:
        model: the causal language model, in eval mode.
        tokenizer: its tokenizer.
        name: as it was asked for.
        commit: the hub's commit, or a digest of a local folder.
        dtype: torch's name of its floating point type.
        eos_ids: tokens that end an answer, increasing.
        pad_id: token that fills up batches; it is masked, so any will do.
        layers: number of blocks.
        hidden_size: width of a hidden state.
        attention: the implementation that generation uses.
    """

    model: Any
    tokenizer: Any
    name: str
    commit: str
    dtype: str
    eos_ids: tuple[int, ...]
    pad_id: int
    layers: int
    hidden_size: int
    attention: str

    @property
    def device(self) -> torch.device:
        """Where its inputs have to be."""
        device: torch.device = self.model.device
        return device

    @property
    def longest(self) -> int | None:
        """Most tokens it takes; None where its configuration does not say."""
        limit = getattr(self.model.config.get_text_config(), "max_position_embeddings", None)
        return int(limit) if limit and limit > 0 else None


def default_prompt(config: ExtractConfig) -> str | None:
    """The prompt template: as asked, the small model's own, or None for the general one."""
    if config.prompt is None and config.model == "demo":
        return PROMPT_TEMPLATE
    return config.prompt


def resolve_device(device: str) -> str:
    """``auto`` is the GPU where there is one."""
    import torch

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        kind = torch.device(device).type
    except RuntimeError:
        raise ModelError(
            f"Expected a device such as cpu, cuda or cuda:1, got {device!r} - change --device"
        ) from None
    if kind == "cuda" and not torch.cuda.is_available():
        raise ModelError(
            f"Expected a GPU for --device {device}, got none that torch can see - "
            "use --device cpu, or install a build of torch for the GPU"
        )
    return device


def load_config(name: str, revision: str | None = None, patience: Patience | None = None) -> Any:
    """The configuration of a model, without its weights.

    Args:
        name: on the hub, of a folder, or ``demo``.
        revision: commit, branch or tag on the hub.
        patience: with a hub that is slow or busy.

    Raises:
        ModelError: no such model, or not a causal language model.
    """
    from transformers import AutoConfig

    where = str(MODEL_FOLDER) if name == "demo" else name
    patience = patience or Patience()
    try:
        config = patience.call(
            lambda: AutoConfig.from_pretrained(where, revision=revision),
            f"Loading the configuration of {name}",
        )
    except (
        Exception
    ) as error:  # transformers raises OSError, ValueError, KeyError and the hub's own
        raise _not_loaded(name, error) from None
    if getattr(config, "is_encoder_decoder", False):
        raise ModelError(
            f"Expected a decoder-only language model, got the encoder-decoder {name} "
            f"({config.model_type}) - choose a causal model such as Qwen/Qwen3-0.6B"
        )
    return config


@one_at_a_time
def load(config: ExtractConfig, patience: Patience | None = None) -> Loaded:
    """Loads the model that a configuration asks for; one thread at a time.

    While transformers loads a model it changes torch for the whole process: models that other
    threads make meanwhile stay without weights.

    Args:
        config: what is asked for.
        patience: with a hub that is slow or busy.

    Raises:
        ModelError: it does not exist, is of a wrong kind, or does not fit.
        MissingExtraError: quantisation without bitsandbytes.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    patience = patience or Patience()
    model_config = load_config(config.model, config.revision, patience)
    where = str(MODEL_FOLDER) if config.model == "demo" else config.model
    device = resolve_device(config.device)
    dtype: Any = config.dtype
    if dtype == "auto" and device == "cpu" and config.device_map is None:
        dtype = "float32"
    dtype = dtype if dtype == "auto" else getattr(torch, dtype)
    try:
        tokenizer = patience.call(
            lambda: AutoTokenizer.from_pretrained(where, revision=config.revision),
            f"Loading the tokenizer of {config.model}",
        )
        model = patience.call(
            lambda: AutoModelForCausalLM.from_pretrained(
                where,
                revision=config.revision,
                dtype=dtype,
                device_map=config.device_map or (device if config.quantization != "none" else None),
                quantization_config=_quantization(config.quantization, dtype),
            ),
            f"Loading the model {config.model}",
        )
    except MissingExtraError:
        raise
    except Exception as error:
        raise _not_loaded(config.model, error) from None
    if config.quantization == "none" and config.device_map is None:
        model = model.to(device)
    model.eval()
    return describe(model, tokenizer, config.model, _commit(model_config, where))


def describe(model: Any, tokenizer: Any, name: str, commit: str) -> Loaded:
    """The facts of a model that is in memory already."""
    text_config = model.config.get_text_config()
    for field in ("num_hidden_layers", "hidden_size", "vocab_size"):
        if not isinstance(getattr(text_config, field, None), int):
            raise ModelError(
                f"Expected a language model of one stack of layers, got {name} "
                f"({model.config.model_type}) without `{field}` in its configuration - "
                "choose another architecture (llama, qwen, mistral, gemma, phi, gpt2 ...)"
            )
    eos_ids = _eos_ids(model, tokenizer)
    pad_id = tokenizer.pad_token_id
    return Loaded(
        model=model,
        tokenizer=tokenizer,
        name=name,
        commit=commit,
        dtype=str(model.dtype).removeprefix("torch."),
        eos_ids=eos_ids,
        pad_id=pad_id if pad_id is not None else (eos_ids[0] if eos_ids else 0),
        layers=text_config.num_hidden_layers,
        hidden_size=text_config.hidden_size,
        attention=str(text_config._attn_implementation),
    )


def _quantization(kind: str, dtype: Any) -> Any:
    if kind == "none":
        return None
    import importlib.util

    if importlib.util.find_spec("bitsandbytes") is None:
        raise MissingExtraError.of("bitsandbytes", "quantization", f"--quantization {kind}")
    from transformers import BitsAndBytesConfig

    if kind == "int8":
        return BitsAndBytesConfig(load_in_8bit=True)
    compute = None if dtype == "auto" else dtype
    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=compute
    )


def _eos_ids(model: Any, tokenizer: Any) -> tuple[int, ...]:
    """All tokens that end an answer: of the generation configuration, else of the tokenizer."""
    found = model.generation_config.eos_token_id
    if found is None:
        found = tokenizer.eos_token_id
    if found is None:
        return ()
    return tuple(sorted({found} if isinstance(found, int) else set(found)))


def _commit(config: Any, where: str) -> str:
    """The hub's commit, or a digest of the files of a local folder."""
    folder = Path(where)
    if not folder.is_dir():
        return str(getattr(config, "_commit_hash", None) or "unknown")
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.suffix not in {".json", ".safetensors", ".bin", ".model", ".jinja", ".txt"}:
            continue
        size = path.stat().st_size
        digest.update(f"{path.name}:{size}\n".encode())
        with path.open("rb") as file:
            if size <= _WHOLE_FILE:
                digest.update(file.read())
            else:
                digest.update(file.read(_EDGE))
                file.seek(size - _EDGE)
                digest.update(file.read(_EDGE))
    return f"folder-{digest.hexdigest()[:16]}"


def _not_loaded(name: str, error: Exception) -> ModelError:
    reason = " ".join(str(error).split())
    reason = reason if len(reason) <= 300 else reason[:297] + "..."
    return ModelError(
        f"Expected a causal language model that transformers loads, got {type(error).__name__} for "
        f"{name!r} ({reason}) - check the name or folder, the network, and `hf auth login` for "
        "gated models"
    )
