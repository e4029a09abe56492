"""What a model's name stands for: its files, its commit, its configuration and its adapter."""

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
from hallutrace.retry import Retry
from hallutrace.transformers_compat import knows_quantization

GGUF = ".gguf"


@dataclass(frozen=True)
class Checkpoint:
    """A model, as its files say, before its weights are loaded.

    Attributes:
        name: as it was asked for.
        model: the files of the model.
        config: of transformers.
        adapter: the files of the adapter that goes on top of it, if it was one that was asked for.
        trust_remote_code: whether code that comes with the files may run.
    """

    name: str
    model: Files
    config: Any
    adapter: Files | None
    trust_remote_code: bool

    def digested(self, note: Callable[[str], None]) -> Checkpoint:
        """The same with the commits of all its files known.

        Args:
            note: told where many bytes have to be read.

        Raises:
            ModelError: a file that cannot be read.
        """
        adapter = None if self.adapter is None else self.adapter.digested(note)
        return replace(self, model=self.model.digested(note), adapter=adapter)

    @property
    def files(self) -> Files:
        """Those that were asked for: of the adapter, where it is one."""
        return self.adapter or self.model

    @property
    def quantization(self) -> dict[str, Any] | None:
        """The checkpoint's own ``quantization_config``; None if its weights are not quantised."""
        return config_quantization(self.config)

    @property
    def quantization_name(self) -> str:
        """What it is called in a run's identity; ``none`` if its weights are not quantised."""
        if self.model.gguf is not None:
            return f"gguf {gguf_type(self.model.path)}"
        return "none" if (found := self.quantization) is None else quantization_name(found)


def open_checkpoint(asked: ModelName, retry: Retry | None = None) -> Checkpoint:
    """Finds a model's files and reads its configuration; no weights.

    Args:
        asked: the model.
        retry: of what fails for a moment, as when a hub is busy.

    Raises:
        ModelError: no such model, or not a causal language model.
        MissingExtraError: a GGUF file, and no package that reads it.
    """
    retry = retry or Retry()
    name = asked.adapter or asked.name
    with loading(name):
        where = _where(asked.name, asked.revision)
        adapter, revision = where, asked.revision
        if asked.adapter is not None:
            adapter, revision = _where(asked.adapter, None), None
        found = retry.call(
            lambda: adapter_config(adapter, revision), f"Looking for an adapter in {name}"
        )
        base, base_revision = base_of(asked, where, found)

    def find() -> Checkpoint:
        model = Files.of(base, base_revision, CONFIG)
        config = _config(model, asked.trust_remote_code)
        files = None if found is None else Files.of(adapter, revision, ADAPTER_CONFIG)
        return Checkpoint(name, model, config, files, asked.trust_remote_code)

    with loading(name if found is None else f"{base}, the base model of {name}"):
        checkpoint = retry.call(find, f"Loading the configuration of {name}")
        check_config(checkpoint.config, name)
    return checkpoint


def config_quantization(config: Any) -> dict[str, Any] | None:
    """The ``quantization_config`` in a model's configuration; None if it has none."""
    for part in (config, config.get_text_config()):
        found = getattr(part, "quantization_config", None)
        if found is not None:
            return dict(found if isinstance(found, Mapping) else found.to_dict())
    return None


def quantization_name(config: Mapping[str, Any]) -> str:
    """A short name of how a checkpoint is quantised, such as ``bitsandbytes nf4`` or ``gptq 4``.

    Args:
        config: its ``quantization_config``.
    """
    method = str(getattr(config.get("quant_method"), "value", config.get("quant_method")))
    if config.get("load_in_8bit"):
        return "bitsandbytes int8"
    if config.get("load_in_4bit"):
        return f"bitsandbytes {config.get('bnb_4bit_quant_type', 'fp4')}"
    bits = config.get("bits") or config.get("nbits") or config.get("weights")
    return f"{method} {bits}" if isinstance(bits, (int, str)) else method


def _where(name: str, revision: str | None) -> str:
    """The folder or the repository that a name stands for."""
    if not name.strip():
        raise ModelError("Expected a model's name or folder, got none - change --model")
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
            f"Expected --revision with a name on the hub, got {revision!r} with the {kind} {where} "
            f"- leave it out, for a {kind} has one revision"
        )
    return where


def _config(files: Files, trust_remote_code: bool) -> Any:
    from transformers import AutoConfig

    return AutoConfig.from_pretrained(
        files.where, trust_remote_code=trust_remote_code, **files.arguments
    )


def check_config(config: Any, name: str) -> None:
    """Refuses what cannot be loaded, or would be loaded as something else than it is.

    Args:
        config: of transformers.
        name: of the model.

    Raises:
        ModelError: an encoder-decoder model, or weights quantised in an unknown way.
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
