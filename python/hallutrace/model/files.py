"""The files of a model: a folder, one file, or a commit on the hub, and which was asked for."""

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
    """The model that is asked for, by name.

    Attributes:
        name: on the hub, of a folder, of a GGUF file, or ``demo``; of an adapter of peft too.
        revision: commit, branch or tag on the hub.
        adapter: folder, or name on the hub, of an adapter of peft that goes on top of the model.
        trust_remote_code: whether code that comes with the files may run.
    """

    name: str
    revision: str | None = None
    adapter: str | None = None
    trust_remote_code: bool = False

    @classmethod
    def of(cls, config: ExtractConfig) -> ModelName:
        """The model that a configuration asks for."""
        return cls(config.model, config.revision, config.adapter, config.trust_remote_code)


@dataclass(frozen=True)
class Files:
    """A folder, one file of a folder, or one commit of a repository on the hub.

    Attributes:
        where: the folder, or the name of the repository.
        revision: what to ask the hub for: its commit, where that is known; None for a folder.
        commit: the hub's commit, or a digest of the file or of all files of the folder;
            ``unknown`` before it is made.
        digest: of the folder; None for the hub.
        gguf: name of the GGUF file that holds the whole model; None elsewhere.
    """

    where: str
    revision: str | None
    commit: str
    digest: FolderDigest | None
    gguf: str | None = None

    @classmethod
    def of(cls, where: str, revision: str | None, file: str) -> Files:
        """A folder or GGUF file, not digested yet, or what the hub says is the commit.

        Args:
            where: folder, GGUF file, or repository on the hub.
            revision: commit, branch or tag on the hub.
            file: one that the repository has.
        """
        if Path(where).is_file():
            return cls(str(Path(where).parent), None, "unknown", None, Path(where).name)
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
        digest = digest_folder(Path(self.where), note, only=self.gguf)
        return replace(self, commit=digest.text, digest=digest)

    @property
    def path(self) -> Path:
        """The folder, or the GGUF file."""
        return Path(self.where, self.gguf or "")

    @property
    def arguments(self) -> dict[str, Any]:
        """The keyword arguments of ``from_pretrained`` that ask for these files and no others."""
        asked = {"revision": self.revision, "gguf_file": self.gguf}
        return {name: value for name, value in asked.items() if value is not None}

    def check_unchanged(self) -> None:
        """Refuses a folder whose files changed since.

        Raises:
            ModelError: naming them.
        """
        if self.digest is not None:
            self.digest.check_unchanged()
