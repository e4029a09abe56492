"""Resolves a model name to its files, commit, configuration and adapter."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hallutrace.demo import MODEL_FOLDER
from hallutrace.errors import ModelError
from hallutrace.model.adapters import adapter_config, base_of
from hallutrace.model.files import ADAPTER_CONFIG, CONFIG, Files, ModelName
from hallutrace.model.gguf import check_gguf, gguf_type
from hallutrace.model.library_errors import loading
from hallutrace.option_names import parameter
from hallutrace.retry import Retry
from hallutrace.transformers_compat import knows_quantization

GGUF = ".gguf"


@dataclass(frozen=True)
class Checkpoint:
    """The files and configuration of a model; its weights are not loaded.

    Attributes:
        name: the requested name, of the adapter if there is one.
        model: files of the base model.
        config: the transformers configuration.
        adapter: files of the adapter; None without one.
        trust_remote_code: whether Python code of the checkpoint may run.
    """

    name: str
    model: Files
    config: Any
    adapter: Files | None
    trust_remote_code: bool

    def digested(self, note: Callable[[str], None]) -> Checkpoint:
        """A copy with all commits known; local folders are digested.

        Args:
            note: called with a message before many bytes are read.

        Raises:
            ModelError: a file that cannot be read.
        """
        adapter = None if self.adapter is None else self.adapter.digested(note)
        return replace(self, model=self.model.digested(note), adapter=adapter)

    @property
    def files(self) -> Files:
        """The requested files: of the adapter if there is one, else of the model."""
        return self.adapter or self.model

    @property
    def quantization(self) -> dict[str, Any] | None:
        """The checkpoint's ``quantization_config``; None if its weights are not quantised."""
        return config_quantization(self.config)

    @property
    def quantization_name(self) -> str:
        """The quantisation as named in a run's identity; ``none`` if there is none."""
        if self.model.gguf is not None:
            return f"gguf {gguf_type(self.model.path)}"
        return "none" if (config := self.quantization) is None else quantization_name(config)


def open_checkpoint(requested: ModelName, retry: Retry | None = None) -> Checkpoint:
    """Finds a model's files and reads its configuration, without weights.

    Args:
        requested: the requested model.
        retry: repeats temporary failures, such as of a busy hub.

    Raises:
        ModelError: the model was not found, or is not a causal language model.
        MissingExtraError: the model is a GGUF file and the package ``gguf`` is not installed.

    Examples:
        >>> open_checkpoint(ModelName("demo")).quantization_name
        'none'
    """
    retry = retry or Retry()
    name = requested.adapter or requested.name
    with loading(name):
        where = _resolve_name(requested.name, requested.revision)
        adapter, revision = where, requested.revision
        if requested.adapter is not None:
            adapter, revision = _resolve_name(requested.adapter, None), None
        found = retry.call(
            lambda: adapter_config(adapter, revision), f"Looking for an adapter in {name}"
        )
        base, base_revision = base_of(requested, where, found)

    def find() -> Checkpoint:
        model = Files.of(base, base_revision, CONFIG)
        config = _config(model, requested.trust_remote_code)
        files = None if found is None else Files.of(adapter, revision, ADAPTER_CONFIG)
        return Checkpoint(name, model, config, files, requested.trust_remote_code)

    with loading(name if found is None else f"{base}, the base model of {name}"):
        checkpoint = retry.call(find, f"Loading the configuration of {name}")
        check_config(checkpoint.config, name)
    return checkpoint


def config_quantization(config: Any) -> dict[str, Any] | None:
    """The ``quantization_config`` of a transformers configuration; None if it has none."""
    for level in (config, config.get_text_config()):
        quantization = getattr(level, "quantization_config", None)
        if quantization is not None:
            is_mapping = isinstance(quantization, Mapping)
            return dict(quantization if is_mapping else quantization.to_dict())
    return None


def quantization_name(config: Mapping[str, Any]) -> str:
    """A short name of the quantisation of a checkpoint, such as ``bitsandbytes nf4`` or ``gptq 4``.

    Args:
        config: the checkpoint's ``quantization_config``.

    Examples:
        >>> quantization_name({"quant_method": "gptq", "bits": 4})
        'gptq 4'
    """
    method = str(getattr(config.get("quant_method"), "value", config.get("quant_method")))
    if config.get("load_in_8bit"):
        return "bitsandbytes int8"
    if config.get("load_in_4bit"):
        return f"bitsandbytes {config.get('bnb_4bit_quant_type', 'fp4')}"
    bits = config.get("bits") or config.get("nbits") or config.get("weights")
    return f"{method} {bits}" if isinstance(bits, (int, str)) else method


def _resolve_name(name: str, revision: str | None) -> str:
    """Resolves a name to a folder, a GGUF file or a repository on the hub."""
    if not name.strip():
        raise ModelError(
            f"Expected a model's name or folder, got none - change {parameter('model')}"
        )
    where = str(MODEL_FOLDER) if name == "demo" else name
    if where.startswith("~"):
        where = str(Path(where).expanduser())
    path = Path(where)
    if path.is_file():
        if path.suffix.lower() != GGUF:
            raise ModelError(
                f"Expected a model's name, folder or GGUF file, got the file {where} - give the "
                "folder it is in"
            )
        check_gguf(path)
    if revision is not None and path.exists():
        kind = "folder" if path.is_dir() else "file"
        raise ModelError(
            f"Expected {parameter('revision')} with a name on the hub, got {revision!r} with the "
            f"{kind} {where} - leave it out, for a {kind} has one revision"
        )
    return where


def _config(files: Files, trust_remote_code: bool) -> Any:
    from transformers import AutoConfig

    return AutoConfig.from_pretrained(
        files.location, trust_remote_code=trust_remote_code, **files.arguments
    )


def check_config(config: Any, name: str) -> None:
    """Raises :class:`ModelError` for a model that would fail to load or load wrongly.

    Args:
        config: the transformers configuration.
        name: the model's name, for the error message.

    Raises:
        ModelError: an encoder-decoder model, or an unknown quantisation method.
    """
    if getattr(config, "is_encoder_decoder", False):
        raise ModelError(
            f"Expected a decoder-only language model, got the encoder-decoder {name} "
            f"({config.model_type}) - choose a causal model such as Qwen/Qwen3-0.6B"
        )
    quantization = config_quantization(config)
    if quantization is not None and not knows_quantization(quantization):
        raise ModelError(
            f"Expected a checkpoint that transformers reads, got one quantised by "
            f"{quantization_name(quantization)!r} ({name}) - install a version of transformers "
            "that knows it, or choose another checkpoint"
        )
