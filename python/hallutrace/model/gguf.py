"""A model in one GGUF file: checked before transformers reads it, and how it is quantised."""

from __future__ import annotations

import importlib.util
from collections import Counter
from functools import lru_cache
from pathlib import Path

from hallutrace.errors import MissingExtraError, ModelError

MAGIC = b"GGUF"


def check_gguf(path: Path) -> None:
    """Refuses a file that is not GGUF, and one that nothing installed can read.

    Raises:
        ModelError: another kind of file, or one that cannot be read.
        MissingExtraError: the package ``gguf`` is not installed.
    """
    try:
        with path.open("rb") as file:
            begin = file.read(len(MAGIC))
    except OSError as error:
        raise ModelError(
            f"Expected a GGUF file that can be read, got: {error.strerror} at {path} - check it"
        ) from None
    if begin != MAGIC:
        raise ModelError(
            f"Expected a GGUF file, got {path}, which does not begin with {MAGIC.decode()} - "
            "download it again, or give a folder that transformers reads"
        )
    if importlib.util.find_spec("gguf") is None:
        raise MissingExtraError.of("gguf", "gguf", f"the model {path}")


def gguf_type(path: Path) -> str:
    """The type that most of a GGUF file's weights are stored in, such as ``Q4_1`` or ``F16``."""
    stat = path.stat()
    return _type(path, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=8)
def _type(path: Path, size: int, changed: int) -> str:
    from gguf import GGUFReader

    elements: Counter[str] = Counter()
    for tensor in GGUFReader(path).tensors:
        elements[tensor.tensor_type.name] += int(tensor.n_elements)
    return elements.most_common(1)[0][0]
