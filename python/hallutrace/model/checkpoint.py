"""What a model's name stands for: its files, its commit, its configuration and its adapter."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hallutrace.demo import MODEL_FOLDER
from hallutrace.errors import ModelError
from hallutrace.model.digests import FolderDigest, digest_folder
from hallutrace.model.library_errors import loading
from hallutrace.retry import Retry
from hallutrace.transformers_compat import hub_commit, knows_quantization

CONFIG = "config.json"
ADAPTER_CONFIG = "adapter_config.json"
TOKENIZER_FILES = ("tokenizer_config.json", "tokenizer.json")


@dataclass(frozen=True)
class Files:
    """A folder, or one commit of a repository on the hub.

    Attributes:
        where: the folder, or the name of the repository.
        revision: what to ask the hub for: its commit, where that is known; None for a folder.
        commit: the hub's commit, or a digest of all files of the folder; ``unknown`` before it is
            made.
        digest: of the folder; None for the hub.
    """

    where: str
    revision: str | None
    commit: str
    digest: FolderDigest | None

    @classmethod
    def of(cls, where: str, revision: str | None, file: str) -> Files:
        """A folder, not digested yet, or what the hub says is the commit.

        Args:
            where: folder, or repository on the hub.
            revision: commit, branch or tag on the hub.
            file: one that the repository has.
        """
        if Path(where).is_dir():
            return cls(where, None, "unknown", None)
        commit = hub_commit(where, file, revision)
        return cls(where, commit or revision, commit or "unknown", None)

    def digested(self, note: Callable[[str], None]) -> Files:
        """The same with its commit known, which for a folder takes reading all of it.

        Raises:
            ModelError: a file that cannot be read.
        """
        if self.commit != "unknown" or not Path(self.where).is_dir():
            return self
        digest = digest_folder(Path(self.where), note)
        return replace(self, commit=digest.text, digest=digest)

    @property
    def hub(self) -> dict[str, Any]:
        """The keyword arguments of ``from_pretrained`` that ask for this commit and no other."""
        return {} if self.revision is None else {"revision": self.revision}

    def check_unchanged(self) -> None:
        """Refuses a folder whose files changed since.

        Raises:
            ModelError: naming them.
        """
        if self.digest is not None:
            self.digest.check_unchanged()


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
        for config in (self.config, self.config.get_text_config()):
            found = getattr(config, "quantization_config", None)
            if found is not None:
                return dict(found if isinstance(found, Mapping) else found.to_dict())
        return None

    @property
    def quantization_name(self) -> str:
        """What it is called in a run's identity; ``none`` if its weights are not quantised."""
        return "none" if (found := self.quantization) is None else quantization_name(found)


def open_checkpoint(
    name: str,
    revision: str | None = None,
    retry: Retry | None = None,
    trust_remote_code: bool = False,
) -> Checkpoint:
    """Finds a model's files and reads its configuration; no weights.

    Args:
        name: on the hub, of a folder, or ``demo``.
        revision: commit, branch or tag on the hub.
        retry: of what fails for a moment, as when a hub is busy.
        trust_remote_code: whether code that comes with the files may run.

    Raises:
        ModelError: no such model, or not a causal language model.
    """
    retry = retry or Retry()
    with loading(name):
        where = _where(name, revision)
        found = retry.call(lambda: _adapter(where, revision), f"Looking for an adapter in {name}")
        if found is None:
            base, base_revision, model_name = where, revision, name
        else:
            base, base_revision = _base(name, found), found.get("revision")
            model_name = f"{base}, the base model of {name}"

    def find() -> Checkpoint:
        model = Files.of(base, base_revision, CONFIG)
        adapter = None if found is None else Files.of(where, revision, ADAPTER_CONFIG)
        return Checkpoint(
            name, model, _config(model, trust_remote_code), adapter, trust_remote_code
        )

    with loading(model_name):
        checkpoint = retry.call(find, f"Loading the configuration of {name}")
        _check(checkpoint)
    return checkpoint


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
    if Path(where).is_file():
        raise ModelError(
            f"Expected a model's name or folder, got the file {where} - give the folder it is in"
        )
    if revision is not None and Path(where).is_dir():
        raise ModelError(
            f"Expected --revision with a name on the hub, got {revision!r} with the folder {where} "
            "- leave it out, for a folder has one revision"
        )
    return where


def _config(files: Files, trust_remote_code: bool) -> Any:
    from transformers import AutoConfig

    return AutoConfig.from_pretrained(files.where, trust_remote_code=trust_remote_code, **files.hub)


def _adapter(where: str, revision: str | None) -> dict[str, Any] | None:
    """The configuration of an adapter; None for what is no adapter."""
    from transformers.utils.peft_utils import find_adapter_config_file

    path = find_adapter_config_file(where, revision=revision)
    if path is None:
        return None
    try:
        content = json.loads(Path(path).read_bytes())
        if not isinstance(content, dict):
            raise ValueError("no fields by name")
    except ValueError as error:
        raise ModelError(
            f"Expected the configuration of an adapter in {path}, got {error} - fix the file"
        ) from None
    if any(_weights(Path(path).parent)):
        raise ModelError(
            f"Expected a model or an adapter, got both in {where} - move {ADAPTER_CONFIG} and the "
            "adapter's weights into a folder of their own, and give that as --model"
        )
    return content


def _weights(folder: Path) -> Iterator[Path]:
    """Files of a whole model's weights in a folder."""
    for pattern in ("model*.safetensors", "pytorch_model*.bin"):
        yield from folder.glob(pattern)


def _base(name: str, adapter: Mapping[str, Any]) -> str:
    """Folder or name of the model that an adapter goes on top of."""
    where = adapter.get("base_model_name_or_path")
    fix = f"write its folder or its name on the hub into {ADAPTER_CONFIG}"
    if not isinstance(where, str) or not where:
        raise ModelError(
            f"Expected the base model of the adapter {name!r} in its {ADAPTER_CONFIG}, got none "
            f"under base_model_name_or_path - {fix}"
        )
    if not Path(where).is_dir() and (where[0] in "./~" or where.count("/") > 1):
        raise ModelError(
            f"Expected the base model of the adapter {name!r} at {where}, got no such folder - "
            f"{fix}"
        )
    if _adapter(where, adapter.get("revision")) is not None:
        raise ModelError(
            f"Expected a model under the adapter {name!r}, got another adapter ({where}) - merge "
            "that one into its model first"
        )
    return where


def _check(checkpoint: Checkpoint) -> None:
    """Refuses what cannot be loaded, or would be loaded as something else than it is."""
    name, config = checkpoint.name, checkpoint.config
    if getattr(config, "is_encoder_decoder", False):
        raise ModelError(
            f"Expected a decoder-only language model, got the encoder-decoder {name} "
            f"({config.model_type}) - choose a causal model such as Qwen/Qwen3-0.6B"
        )
    quantization = checkpoint.quantization
    if quantization is not None and not knows_quantization(quantization):
        raise ModelError(
            f"Expected a checkpoint that transformers reads, got one quantised by "
            f"{checkpoint.quantization_name!r} ({name}) - install a version of transformers that "
            "knows it, or choose another checkpoint"
        )
