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
    from hallutrace.config import ExtractConfig
    from hallutrace.edges import EdgeList, Marginals
    from hallutrace.extraction import extract
    from hallutrace.reductions import marginals, sparsify
    from hallutrace.rework import merge, subset
    from hallutrace.store import TraceStore
    from hallutrace.store import open_run as open
    from hallutrace.trace import Trace

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
]

# Where each name lives; it is imported when it is first asked for.
_HOMES = {
    "EdgeList": ("hallutrace.edges", "EdgeList"),
    "ExtractConfig": ("hallutrace.config", "ExtractConfig"),
    "Marginals": ("hallutrace.edges", "Marginals"),
    "Trace": ("hallutrace.trace", "Trace"),
    "TraceStore": ("hallutrace.store", "TraceStore"),
    "extract": ("hallutrace.extraction", "extract"),
    "merge": ("hallutrace.rework", "merge"),
    "subset": ("hallutrace.rework", "subset"),
    "marginals": ("hallutrace.reductions", "marginals"),
    "open": ("hallutrace.store", "open_run"),
    "sparsify": ("hallutrace.reductions", "sparsify"),
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
