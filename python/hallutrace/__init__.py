"""hallutrace: look inside a causal language model while it answers.

``sparsify`` and ``marginals`` reduce attention arrays, ``extract`` makes a run of traces, ``open``
reads one. Importing this package needs numpy alone; torch and transformers load when they are used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from hallutrace.cpu_threads import limit_spinning
from hallutrace.errors import HallutraceError

limit_spinning()

if TYPE_CHECKING:
    from hallutrace.attention.edges import EdgeList, Marginals
    from hallutrace.attention.sparsify import marginals, sparsify
    from hallutrace.config import ExtractConfig
    from hallutrace.extraction.in_memory import trace
    from hallutrace.extraction.pipeline import extract
    from hallutrace.store.merge import merge
    from hallutrace.store.reader import TraceStore
    from hallutrace.store.reader import open_run as open
    from hallutrace.store.subset import subset
    from hallutrace.store.trace import Trace
    from hallutrace.viewer.notebook import view

__all__ = [
    "EdgeList",
    "ExtractConfig",
    "HallutraceError",
    "Marginals",
    "Trace",
    "TraceStore",
    "extract",
    "marginals",
    "merge",
    "open",
    "sparsify",
    "subset",
    "trace",
    "view",
]

# Where each name lives; it is imported when it is first asked for.
_HOMES = {
    "EdgeList": ("hallutrace.attention.edges", "EdgeList"),
    "ExtractConfig": ("hallutrace.config", "ExtractConfig"),
    "Marginals": ("hallutrace.attention.edges", "Marginals"),
    "Trace": ("hallutrace.store.trace", "Trace"),
    "TraceStore": ("hallutrace.store.reader", "TraceStore"),
    "extract": ("hallutrace.extraction.pipeline", "extract"),
    "merge": ("hallutrace.store.merge", "merge"),
    "subset": ("hallutrace.store.subset", "subset"),
    "marginals": ("hallutrace.attention.sparsify", "marginals"),
    "open": ("hallutrace.store.reader", "open_run"),
    "trace": ("hallutrace.extraction.in_memory", "trace"),
    "sparsify": ("hallutrace.attention.sparsify", "sparsify"),
    "view": ("hallutrace.viewer.notebook", "view"),
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return importlib.import_module("importlib.metadata").version("hallutrace")
    if name not in _HOMES:
        raise AttributeError(f"module 'hallutrace' has no attribute {name!r}")
    module, attribute = _HOMES[name]
    value = getattr(importlib.import_module(module), attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
