"""GGUF files: a check before transformers reads one, and the type of its weights."""

from __future__ import annotations

import importlib.util
from collections import Counter
from functools import lru_cache
from pathlib import Path

from hallutrace.errors import MissingExtraError, ModelError

MAGIC = b"GGUF"


def check_gguf(path: Path) -> None:
    """Raises an error unless a file is GGUF and the package that reads it is installed.

    Raises:
        ModelError: the file is not GGUF or cannot be read.
        MissingExtraError: the package ``gguf`` is not installed.
    """
    try:
        with path.open("rb") as file:
            header = file.read(len(MAGIC))
    except OSError as error:
        raise ModelError(
            f"Expected a GGUF file that can be read, got: {error.strerror} at {path} - check it"
        ) from None
    if header != MAGIC:
        raise ModelError(
            f"Expected a GGUF file, got {path}, which does not begin with {MAGIC.decode()} - "
            "download it again, or give a folder that transformers reads"
        )
    if importlib.util.find_spec("gguf") is None:
        raise MissingExtraError.of("gguf", "gguf", f"the model {path}")


def gguf_type(path: Path) -> str:
    """The storage type of most weights of a GGUF file, such as ``Q4_1`` or ``F16``."""
    stat = path.stat()
    # Size and time are part of the cache key, so that a changed file is read again.
    return _most_common_type(path, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=8)
def _most_common_type(path: Path, size: int, mtime_ns: int) -> str:
    from gguf import GGUFReader

    elements: Counter[str] = Counter()
    for tensor in GGUFReader(path).tensors:
        elements[tensor.tensor_type.name] += int(tensor.n_elements)
    return elements.most_common(1)[0][0]
