"""Loading a model and its tokenizer."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hallutrace.config import ExtractConfig
from hallutrace.demo import MODEL_FOLDER, PROMPT_TEMPLATE
from hallutrace.errors import MissingExtraError, ModelError
from hallutrace.model.checkpoint import Checkpoint, open_checkpoint
from hallutrace.model.devices import computes_in_float32, resolve_device
from hallutrace.model.digests import FolderDigest
from hallutrace.model.files import TOKENIZER_FILES, Files, ModelName
from hallutrace.model.library_errors import loading
from hallutrace.model.locks import one_at_a_time
from hallutrace.model.remote_code import code_digest, unused_code
from hallutrace.model.vocabulary import (
    check_vocabulary,
    embedding_rows,
    padding_id,
    vocabulary_notes,
)
from hallutrace.model.weights import damaged_file, load_weights
from hallutrace.option_names import parameter
from hallutrace.retry import Retry
from hallutrace.transformers_compat import hub_commit

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Loaded:
    """A loaded model with its tokenizer and the properties that generation and capture need.

    Attributes:
        model: the causal language model, in eval mode.
        tokenizer: its tokenizer.
        name: the requested name.
        commit: the hub's commit, or a digest of a local folder.
        dtype: torch's name of the floating point type, such as ``bfloat16``.
        eos_ids: ids of the end-of-sequence tokens, increasing.
        pad_id: id of the token that pads batches; it is masked, so that its choice has no effect.
        layers: number of transformer layers.
        hidden_size: dimension of the hidden states.
        attention: the attention implementation of generation.
        quantization: ``int8`` or ``nf4`` if quantised on loading, else that of the checkpoint.
        base: ``name`` and ``commit`` of the base model of an adapter; None without an adapter.
        trust_remote_code: whether Python code of the checkpoint may run.
        code: digest of that code; None if none runs.
        digests: digests of the folders from which weights may be memory-mapped.
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
    quantization: str = "none"
    base: dict[str, str] | None = None
    trust_remote_code: bool = False
    code: str | None = None
    digests: tuple[FolderDigest, ...] = ()

    @property
    def device(self) -> torch.device:
        """The device of the model's inputs."""
        device: torch.device = self.model.device
        return device

    @property
    def context_length(self) -> int | None:
        """Maximum number of tokens of the context; None if the configuration has no limit."""
        limit = getattr(self.model.config.get_text_config(), "max_position_embeddings", None)
        return int(limit) if limit and limit > 0 else None

    @property
    def is_dequantized(self) -> bool:
        """Whether a quantised checkpoint was dequantised, for lack of kernels on this machine."""
        is_checkpoints_own = self.quantization not in ("none", "int8", "nf4")
        return is_checkpoints_own and not getattr(self.model, "is_quantized", False)

    def identity(self) -> dict[str, Any]:
        """The properties that determine the bytes of a trace, as JSON."""
        return {
            "name": self.name,
            "commit": self.commit,
            "dtype": self.dtype,
            "quantization": self.quantization,
            "base": self.base,
            "trust_remote_code": self.trust_remote_code,
            "code": self.code,
        }

    def check_in_place(self) -> None:
        """Raises :class:`ModelError` if weight files were overwritten since they were loaded."""
        for digest in self.digests:
            digest.check_in_place()


def default_prompt(config: ExtractConfig, loaded: Loaded) -> str | None:
    """The requested prompt template, else that of the demo model; None for the general default."""
    is_demo = loaded.name == "demo" or (loaded.base or {}).get("name") == str(MODEL_FOLDER)
    return PROMPT_TEMPLATE if config.prompt is None and is_demo else config.prompt


def load_config(requested: ModelName) -> Any:
    """Loads the configuration of a model, or of the base model of an adapter, without weights.

    Raises:
        ModelError: the model was not found, or is not a causal language model.

    Examples:
        >>> load_config(ModelName("demo")).is_encoder_decoder
        False
    """
    return open_checkpoint(requested).config


def load_tokenizer(requested: ModelName) -> Any:
    """Loads the tokenizer of a model, or of an adapter that has its own.

    Raises:
        ModelError: the model was not found, or has no tokenizer.

    Examples:
        >>> load_tokenizer(ModelName("demo")).is_fast
        True
    """
    return _tokenizer(open_checkpoint(requested), Retry())


@one_at_a_time
def load(config: ExtractConfig, retry: Retry | None = None) -> Loaded:
    """Loads the model of an extraction configuration; one thread at a time.

    The lock is needed because transformers changes global state of torch while it loads: models
    that other threads create at that time would get no weights.

    Args:
        config: the extraction configuration.
        retry: repeats temporary failures, such as of a busy hub; its ``note`` also receives
            warnings about the model for the user.

    Raises:
        ModelError: the model was not found, is not supported, is incomplete or does not fit.
        MissingExtraError: a package that the model needs is not installed.

    Examples:
        >>> load(hallutrace.ExtractConfig(model="demo", questions="demo:1", out=folder)).name
        'demo'
    """
    retry = retry or Retry()
    checkpoint = open_checkpoint(ModelName.of(config), retry)
    if config.quantization != "none" and checkpoint.quantization_name != "none":
        raise ModelError(
            "Expected a checkpoint that is not quantised for "
            f"{parameter('quantization', config.quantization)}, got {config.model} with "
            f"{checkpoint.quantization_name} - use {parameter('quantization', 'none')}"
        )
    if checkpoint.adapter is not None and importlib.util.find_spec("peft") is None:
        raise MissingExtraError.of("peft", "adapters", f"the adapter {checkpoint.name}")
    device = resolve_device(config.device)
    checkpoint = checkpoint.digested(retry.note)
    tokenizer = _tokenizer(checkpoint, retry)
    model = _model(checkpoint, config, device, retry)
    for files in (checkpoint.model, checkpoint.adapter):
        if files is not None:
            files.check_unchanged()
    if checkpoint.files.commit == "unknown":
        retry.note(f"The hub tells no commit of {config.model}: the run cannot record it")
    rows = embedding_rows(model)
    check_vocabulary(tokenizer, rows, config.model)
    for note in (
        *vocabulary_notes(tokenizer, rows, _eos_ids(model, tokenizer)),
        *unused_code(checkpoint, tokenizer),
    ):
        retry.note(note)
    return describe(
        model,
        tokenizer,
        checkpoint.name,
        checkpoint.files.commit,
        quantization=(
            checkpoint.quantization_name if config.quantization == "none" else config.quantization
        ),
        base=_base(checkpoint),
        trust_remote_code=config.trust_remote_code,
        code=code_digest(model, tokenizer),
        digests=_mapped(model, checkpoint),
    )


def describe(model: Any, tokenizer: Any, name: str, commit: str, **facts: Any) -> Loaded:
    """Reads the properties of a model in memory.

    Args:
        model: a transformers model.
        tokenizer: its tokenizer.
        name: name of the model.
        commit: commit or digest of its files.
        facts: further fields of :class:`Loaded`.

    Raises:
        ModelError: the configuration lacks the size of the layers or of the vocabulary.
    """
    text_config = model.config.get_text_config()
    for field in ("num_hidden_layers", "hidden_size", "vocab_size"):
        if not isinstance(getattr(text_config, field, None), int):
            raise ModelError(
                f"Expected a language model of one stack of layers, got {name} "
                f"({model.config.model_type}) without `{field}` in its configuration - "
                "choose another architecture (llama, qwen, mistral, gemma, phi, gpt2 ...)"
            )
    eos_ids = _eos_ids(model, tokenizer)
    return Loaded(
        model=model,
        tokenizer=tokenizer,
        name=name,
        commit=commit,
        dtype=str(model.dtype).removeprefix("torch."),
        eos_ids=eos_ids,
        pad_id=padding_id(tokenizer, embedding_rows(model), eos_ids),
        layers=text_config.num_hidden_layers,
        hidden_size=text_config.hidden_size,
        attention=str(text_config._attn_implementation),
        **facts,
    )


def _eos_ids(model: Any, tokenizer: Any) -> tuple[int, ...]:
    """All end-of-sequence tokens: of the generation configuration, else of the tokenizer."""
    eos = model.generation_config.eos_token_id
    if eos is None:
        eos = tokenizer.eos_token_id
    if eos is None:
        return ()
    return tuple(sorted({eos} if isinstance(eos, int) else set(eos)))


def _tokenizer(checkpoint: Checkpoint, retry: Retry) -> Any:
    """Loads the tokenizer of the adapter if it has one, else of the model."""
    from transformers import AutoTokenizer

    files = checkpoint.model
    if checkpoint.adapter is not None and _has_tokenizer(checkpoint.adapter):
        files = checkpoint.adapter
    with loading(checkpoint.name):
        return retry.call(
            lambda: AutoTokenizer.from_pretrained(
                files.location, trust_remote_code=checkpoint.trust_remote_code, **files.arguments
            ),
            f"Loading the tokenizer of {checkpoint.name}",
        )


def _has_tokenizer(files: Files) -> bool:
    if Path(files.location).is_dir():
        return any((Path(files.location) / name).is_file() for name in TOKENIZER_FILES)
    return any(hub_commit(files.location, name, files.revision) for name in TOKENIZER_FILES)


def _model(checkpoint: Checkpoint, config: ExtractConfig, device: str, retry: Retry) -> Any:
    """Loads the model; if that fails because of a damaged file, the error names the file."""
    dtype = config.dtype
    is_float32 = config.device_map is None and computes_in_float32(device)
    if dtype == "auto" and is_float32 and checkpoint.quantization is None:
        dtype = "float32"

    def weights() -> Any:
        return load_weights(
            checkpoint,
            dtype=dtype,
            quantization=config.quantization,
            device=device,
            device_map=config.device_map,
            attention=config.attn_implementation,
            note=retry.note,
        )

    try:
        with loading(checkpoint.name, device):
            return retry.call(weights, f"Loading the model {checkpoint.name}")
    except ModelError:
        for files in (checkpoint.model, checkpoint.adapter):
            if files is None or files.gguf is not None:
                continue
            if damage := damaged_file(Path(files.location)):
                raise ModelError(
                    f"Expected whole files in {files.location}, got {damage} - download or save "
                    "the checkpoint again"
                ) from None
        raise


def _base(checkpoint: Checkpoint) -> dict[str, str] | None:
    if checkpoint.adapter is None:
        return None
    return {"name": str(checkpoint.model.path), "commit": checkpoint.model.commit}


def _mapped(model: Any, checkpoint: Checkpoint) -> tuple[FolderDigest, ...]:
    """Digests of the folders of memory-mapped or offloaded weights, which are still read."""
    if all(weight.device.type not in ("cpu", "meta") for weight in model.parameters()):
        return ()
    both = (checkpoint.model, checkpoint.adapter)
    return tuple(files.digest for files in both if files is not None and files.digest is not None)
