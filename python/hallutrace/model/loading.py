"""Loading a model and its tokenizer, and the facts of it that the rest needs."""

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
from hallutrace.retry import Retry
from hallutrace.transformers_compat import hub_commit

if TYPE_CHECKING:
    import torch


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
        quantization: ``none``, ``int8`` or ``nf4`` as asked, or that of the checkpoint itself.
        base: name and commit of the model under an adapter; None where it is no adapter.
        trust_remote_code: whether code that comes with the files may run.
        code: digest of such code that did run; None if none did.
        digests: of the folders that its weights may be mapped from.
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
        """Where its inputs have to be."""
        device: torch.device = self.model.device
        return device

    @property
    def longest(self) -> int | None:
        """Most tokens it takes; None where its configuration does not say."""
        limit = getattr(self.model.config.get_text_config(), "max_position_embeddings", None)
        return int(limit) if limit and limit > 0 else None

    @property
    def is_dequantized(self) -> bool:
        """Whether a quantised checkpoint was unpacked, as this machine cannot compute with it."""
        is_own = self.quantization not in ("none", "int8", "nf4")
        return is_own and not getattr(self.model, "is_quantized", False)

    def identity(self) -> dict[str, Any]:
        """What of it decides the bytes of a trace."""
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
        """Refuses to go on with weights whose files were written to since they were loaded.

        Raises:
            ModelError: naming the files.
        """
        for digest in self.digests:
            digest.check_in_place()


def default_prompt(config: ExtractConfig, loaded: Loaded) -> str | None:
    """The prompt template: as asked, the small model's own, or None for the general one."""
    is_small = loaded.name == "demo" or (loaded.base or {}).get("name") == str(MODEL_FOLDER)
    return PROMPT_TEMPLATE if config.prompt is None and is_small else config.prompt


def load_config(asked: ModelName) -> Any:
    """The configuration of a model, or of the model under an adapter, without any weights.

    Raises:
        ModelError: no such model, or not a causal language model.
    """
    return open_checkpoint(asked).config


def load_tokenizer(asked: ModelName) -> Any:
    """The tokenizer of a model, or the one that an adapter brings with it.

    Raises:
        ModelError: no such model, or one without a tokenizer.
    """
    return _tokenizer(open_checkpoint(asked), Retry())


@one_at_a_time
def load(config: ExtractConfig, retry: Retry | None = None) -> Loaded:
    """Loads the model that a configuration asks for; one thread at a time.

    While transformers loads a model it changes torch for the whole process: models that other
    threads make meanwhile stay without weights.

    Args:
        config: what is asked for.
        retry: of what fails for a moment, as when a hub is busy; its ``note`` also receives
            what a user should know of the model.

    Raises:
        ModelError: it does not exist, is of a wrong kind, is incomplete, or does not fit.
        MissingExtraError: a package that it needs is not installed.
    """
    retry = retry or Retry()
    checkpoint = open_checkpoint(ModelName.of(config), retry)
    if config.quantization != "none" and checkpoint.quantization_name != "none":
        raise ModelError(
            f"Expected a checkpoint that is not quantised for --quantization {config.quantization},"
            f" got {config.model} with {checkpoint.quantization_name} - use --quantization none"
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
    """The facts of a model that is in memory already.

    Args:
        model: of transformers.
        tokenizer: its tokenizer.
        name: of the model.
        commit: of its files.
        facts: further fields of :class:`Loaded`.
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
    """All tokens that end an answer: of the generation configuration, else of the tokenizer."""
    found = model.generation_config.eos_token_id
    if found is None:
        found = tokenizer.eos_token_id
    if found is None:
        return ()
    return tuple(sorted({found} if isinstance(found, int) else set(found)))


def _tokenizer(checkpoint: Checkpoint, retry: Retry) -> Any:
    """An adapter's own tokenizer, where it brings one; else its model's."""
    from transformers import AutoTokenizer

    files = checkpoint.model
    if checkpoint.adapter is not None and _has_tokenizer(checkpoint.adapter):
        files = checkpoint.adapter
    with loading(checkpoint.name):
        return retry.call(
            lambda: AutoTokenizer.from_pretrained(
                files.where, trust_remote_code=checkpoint.trust_remote_code, **files.arguments
            ),
            f"Loading the tokenizer of {checkpoint.name}",
        )


def _has_tokenizer(files: Files) -> bool:
    if Path(files.where).is_dir():
        return any((Path(files.where) / name).is_file() for name in TOKENIZER_FILES)
    return any(hub_commit(files.where, name, files.revision) for name in TOKENIZER_FILES)


def _model(checkpoint: Checkpoint, config: ExtractConfig, device: str, retry: Retry) -> Any:
    """The model in memory; where that fails for a damaged file, an error that names the file."""
    dtype = config.dtype
    is_wide = config.device_map is None and computes_in_float32(device)
    if dtype == "auto" and is_wide and checkpoint.quantization is None:
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
            if damage := damaged_file(Path(files.where)):
                raise ModelError(
                    f"Expected whole files in {files.where}, got {damage} - download or save the "
                    "checkpoint again"
                ) from None
        raise


def _base(checkpoint: Checkpoint) -> dict[str, str] | None:
    if checkpoint.adapter is None:
        return None
    return {"name": str(checkpoint.model.path), "commit": checkpoint.model.commit}


def _mapped(model: Any, checkpoint: Checkpoint) -> tuple[FolderDigest, ...]:
    """Digests of the folders that weights may still be read from: mapped, or left on the disk."""
    if all(weight.device.type not in ("cpu", "meta") for weight in model.parameters()):
        return ()
    parts = (checkpoint.model, checkpoint.adapter)
    return tuple(part.digest for part in parts if part is not None and part.digest is not None)
