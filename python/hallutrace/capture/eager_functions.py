"""Wraps the eager attention functions in the modules of a transformers model.

Each modeling module of transformers defines ``eager_attention_forward``, and its layers look the
function up by that name in the module while their attention implementation is ``eager``.
"""

from __future__ import annotations

import functools
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import torch

# Returns output [batch, queries, heads, head_dim] and weights [batch, heads, queries, keys].
Eager = Callable[..., tuple[torch.Tensor, torch.Tensor]]

# Number of active captures of each module whose eager functions are wrapped.
_CAPTURES: Counter[str] = Counter()
_LOCK = threading.Lock()


@contextmanager
def wrapped(model: Any, wrap: Callable[[Eager], Eager]) -> Iterator[None]:
    """Wraps the eager functions of a model's modules inside the context.

    All threads share the wrapped functions: the first capture wraps them, the last restores them.

    Args:
        model: a model of transformers.
        wrap: returns the wrapped function, made with ``functools.wraps``; the same for all threads.
    """
    names = {name for module in model.modules() for name in _eager_modules(module.__class__)}
    with _LOCK:
        for name in names:
            _CAPTURES[name] += 1
            if _CAPTURES[name] == 1:
                _replace(sys.modules[name], wrap)
    try:
        yield
    finally:
        with _LOCK:
            for name in names:
                _CAPTURES[name] -= 1
                if not _CAPTURES[name]:
                    _replace(sys.modules[name], lambda eager: eager.__wrapped__)


@functools.cache
def _eager_modules(kind: type) -> frozenset[str]:
    """Names of the modules with eager functions that define a class or one of its bases."""
    names = {base.__module__ for base in kind.__mro__ if base.__module__ in sys.modules}
    return frozenset(name for name in names if any(_eager_functions(sys.modules[name])))


def _eager_functions(module: ModuleType) -> Iterator[str]:
    for name in vars(module):
        if name.endswith("eager_attention_forward"):
            yield name


def _replace(module: ModuleType, transform: Callable[[Any], Any]) -> None:
    for name in list(_eager_functions(module)):
        setattr(module, name, transform(getattr(module, name)))
