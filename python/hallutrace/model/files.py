"""The name of a requested model, and its files: a folder, a GGUF file or a commit on the hub."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hallutrace.config import ExtractConfig
from hallutrace.model.digests import FolderDigest, digest_folder
from hallutrace.transformers_compat import hub_commit

CONFIG = "config.json"
ADAPTER_CONFIG = "adapter_config.json"
TOKENIZER_FILES = ("tokenizer_config.json", "tokenizer.json")


@dataclass(frozen=True, slots=True)
class ModelName:
    """The requested model.

    Attributes:
        name: name on the hub, folder or GGUF file of a model, or ``demo``; a PEFT adapter may be
            named here too.
        revision: commit, branch or tag on the hub.
        adapter: folder or name on the hub of a PEFT adapter to load onto the model.
        trust_remote_code: whether Python code of the checkpoint may run.
    """

    name: str
    revision: str | None = None
    adapter: str | None = None
    trust_remote_code: bool = False

    @classmethod
    def of(cls, config: ExtractConfig) -> ModelName:
        """The model of an extraction configuration."""
        return cls(config.model, config.revision, config.adapter, config.trust_remote_code)


@dataclass(frozen=True)
class Files:
    """The files of a model: a folder, a GGUF file, or one commit of a repository on the hub.

    Attributes:
        location: the folder, or the name of the repository.
        revision: revision to request from the hub, the commit if it is known; None for a folder.
        commit: the hub's commit, or the digest of the file or folder; ``unknown`` before it is
            computed.
        digest: digest of the folder; None before it is computed and for the hub.
        gguf: name of the GGUF file in the folder; None without one.
    """

    location: str
    revision: str | None
    commit: str
    digest: FolderDigest | None
    gguf: str | None = None

    @classmethod
    def of(cls, where: str, revision: str | None, file: str) -> Files:
        """A folder or GGUF file, without its digest, or the commit of a repository.

        Args:
            where: folder, GGUF file, or repository on the hub.
            revision: commit, branch or tag on the hub.
            file: name of a file in the repository, used to query the commit.
        """
        if Path(where).is_file():
            return cls(str(Path(where).parent), None, "unknown", None, Path(where).name)
        if Path(where).is_dir():
            return cls(where, None, "unknown", None)
        commit = hub_commit(where, file, revision)
        return cls(where, commit or revision, commit or "unknown", None)

    def digested(self, note: Callable[[str], None]) -> Files:
        """A copy with its commit known; reads all files of a local folder.

        Args:
            note: called with a message before many bytes are read.

        Raises:
            ModelError: a file cannot be read.
        """
        if self.commit != "unknown" or not Path(self.location).is_dir():
            return self
        digest = digest_folder(Path(self.location), note, only=self.gguf)
        return replace(self, commit=digest.text, digest=digest)

    @property
    def path(self) -> Path:
        """The folder, or the GGUF file."""
        return Path(self.location, self.gguf or "")

    @property
    def arguments(self) -> dict[str, Any]:
        """Keyword arguments of ``from_pretrained`` that select these files."""
        arguments = {"revision": self.revision, "gguf_file": self.gguf}
        return {name: value for name, value in arguments.items() if value is not None}

    def check_unchanged(self) -> None:
        """Raises :class:`ModelError` if files of the folder changed since they were digested."""
        if self.digest is not None:
            self.digest.check_unchanged()
