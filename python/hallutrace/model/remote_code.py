"""Code that comes with a checkpoint: which of it ran, and where other classes took its place."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hallutrace.model.checkpoint import Checkpoint
from hallutrace.model.digests import digest_code


def code_digest(model: Any, tokenizer: Any) -> str | None:
    """The digest of the checkpoint's own code that runs: all modules beside those of its classes.

    The code may lie in another repository than the weights, whose commit says nothing of it.
    """
    packages = {
        kind.__module__.rpartition(".")[0]
        for part in (model, tokenizer, model.config)
        for kind in type(part).__mro__
        if kind.__module__.startswith("transformers_modules.")
    }
    files = {
        name.removeprefix(f"{package}."): Path(file)
        for package in packages
        for name, module in list(sys.modules.items())
        if name.startswith(f"{package}.") and (file := getattr(module, "__file__", None))
    }
    return digest_code(files) if files else None


def unused_code(checkpoint: Checkpoint, tokenizer: Any) -> Iterator[str]:
    """Says where classes of transformers stand in for code that the checkpoint comes with."""
    given = {
        **(getattr(checkpoint.config, "auto_map", None) or {}),
        **(getattr(tokenizer, "init_kwargs", {}).get("auto_map") or {}),
    }
    if given and not checkpoint.trust_remote_code:
        yield (
            f"{checkpoint.name} comes with code of its own ({', '.join(sorted(given))}), which did "
            "not run: classes of transformers are used; --trust-remote-code would run it"
        )
