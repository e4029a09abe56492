"""Python code of a checkpoint: a digest of what runs, and a warning if it is not used."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hallutrace.model.checkpoint import Checkpoint
from hallutrace.model.digests import digest_code
from hallutrace.option_names import parameter


def code_digest(model: Any, tokenizer: Any) -> str | None:
    """Digest of the checkpoint's Python code that runs; None if there is none.

    It covers all imported modules of the packages that define the classes. The commit of the
    weights does not identify the code, which may be in another repository.
    """
    packages = {
        kind.__module__.rpartition(".")[0]
        for instance in (model, tokenizer, model.config)
        for kind in type(instance).__mro__
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
    """Yields a warning if the checkpoint has Python code and transformers classes run instead."""
    code = {
        **(getattr(checkpoint.config, "auto_map", None) or {}),
        **(getattr(tokenizer, "init_kwargs", {}).get("auto_map") or {}),
    }
    if code and not checkpoint.trust_remote_code:
        yield (
            f"{checkpoint.name} comes with code of its own ({', '.join(sorted(code))}), which did "
            f"not run: classes of transformers are used; {parameter('trust_remote_code', True)} "
            "would run it"
        )
