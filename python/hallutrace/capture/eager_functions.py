"""The functions by which models of transformers attend, wrapped where the models look them up.

Each modeling module of transformers has an ``eager_attention_forward`` of its own, which its layers
call by that name while their implementation is ``eager``.
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

# A model's eager function: output [batch, queries, heads, width], weights [batch, heads, queries,
# keys].
Eager = Callable[..., tuple[torch.Tensor, torch.Tensor]]

# Modules whose eager functions are wrapped, with how many captures need that.
_WRAPPED: Counter[str] = Counter()
_WRAPPING = threading.Lock()


@contextmanager
def wrapped(model: Any, wrap: Callable[[Eager], Eager]) -> Iterator[None]:
    """Within it, the eager functions of a model's classes are wrapped.

    Threads share them: the first one wraps them, the last one to leave puts them back.

    Args:
        model: whose modules call them.
        wrap: gives another function, made with ``functools.wraps``; the same one for all threads.
    """
    names = {name for module in model.modules() for name in _homes(module.__class__)}
    with _WRAPPING:
        for name in names:
            _WRAPPED[name] += 1
            if _WRAPPED[name] == 1:
                _replace(sys.modules[name], wrap)
    try:
        yield
    finally:
        with _WRAPPING:
            for name in names:
                _WRAPPED[name] -= 1
                if not _WRAPPED[name]:
                    _replace(sys.modules[name], lambda eager: eager.__wrapped__)


@functools.cache
def _homes(kind: type) -> frozenset[str]:
    """Names of the modules in which a class, or one that it is made from, finds eager functions."""
    homes = {base.__module__ for base in kind.__mro__ if base.__module__ in sys.modules}
    return frozenset(name for name in homes if any(_eager_functions(sys.modules[name])))


def _eager_functions(module: ModuleType) -> Iterator[str]:
    for name in vars(module):
        if name.endswith("eager_attention_forward"):
            yield name


def _replace(module: ModuleType, how: Callable[[Any], Any]) -> None:
    for name in list(_eager_functions(module)):
        setattr(module, name, how(getattr(module, name)))
