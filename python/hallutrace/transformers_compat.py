"""Differences between the versions of transformers that hallutrace runs with, all in one place.

Tried with 5.6 to 5.24; the bounds in ``pyproject.toml`` say the same.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import Any

_CLOCKS = threading.Lock()


@cache
def cache_name() -> str:
    """What a model's forward and ``generate`` call the key-value cache, in arguments and outputs.

    Returns:
        ``cache`` from transformers 5.24 on, ``past_key_values`` before.
    """
    from transformers.modeling_outputs import CausalLMOutputWithPast

    names = {field.name for field in fields(CausalLMOutputWithPast)}
    return "cache" if "cache" in names else "past_key_values"


def cache_argument(cache: Any) -> dict[str, Any]:
    """The keyword argument that hands a key-value cache to a model or to ``generate``."""
    return {cache_name(): cache}


def cache_of(output: Any) -> Any:
    """The key-value cache in a model's output; None where the model keeps its state elsewhere."""
    return getattr(output, cache_name(), None)


def hub_commit(name: str, file: str, revision: str | None) -> str | None:
    """The commit that a revision of a model on the hub is at now.

    A configuration knew its commit as ``_commit_hash`` up to some version and does not since; the
    path of a file in the hub's cache tells it with all of them.

    Args:
        name: of the repository.
        file: one that it has.
        revision: commit, branch or tag; None for the default branch.

    Returns:
        40 hexadecimal digits; None where there is no such file or the hub does not answer.
    """
    from transformers.utils import cached_file

    path = cached_file(
        name,
        file,
        revision=revision,
        _raise_exceptions_for_gated_repo=False,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
    )
    parts = Path(path).parts if path is not None else ()
    if "snapshots" not in parts:
        return None
    commit = parts[parts.index("snapshots") + 1]
    return commit if len(commit) == 40 else None


def knows_quantization(method: dict[str, Any]) -> bool:
    """Whether transformers has a reader for a checkpoint's ``quantization_config``.

    It loads a checkpoint of an unknown method as if it were not quantised.
    """
    from transformers.quantizers.auto import AutoHfQuantizer

    return bool(AutoHfQuantizer.supports_quant_method(method))


def unpacked_gguf() -> dict[str, Any]:
    """The arguments of ``from_pretrained`` that have the weights of a GGUF file unpacked.

    From 5.24 on they may stay in their blocks, where the machine has kernels for them, which
    transformers downloads; before, they are always unpacked.
    """
    try:
        from transformers import GgufConfig
    except ImportError:
        return {}
    return {"quantization_config": GgufConfig(dequantize=True)}


@contextmanager
def no_gguf_bar() -> Iterator[None]:
    """Within it, unpacking a GGUF file shows no progress bar; nothing else turns that one off."""
    from transformers import modeling_gguf_pytorch_utils

    before = modeling_gguf_pytorch_utils.tqdm
    modeling_gguf_pytorch_utils.tqdm = lambda tensors, **_: tensors
    try:
        yield
    finally:
        modeling_gguf_pytorch_utils.tqdm = before


@contextmanager
def template_clock(source: str, strftime: Callable[[str], str]) -> Iterator[None]:
    """Within it, a chat template that reads the clock reads another one.

    A function cannot be handed over as an argument: from 5.24 on, templates get plain data alone.
    So it takes the place of the one in the environment that transformers keeps for each template.

    Args:
        source: of the template.
        strftime: what its ``strftime_now`` becomes.
    """
    from transformers.utils import chat_template_utils

    with _CLOCKS:
        known = chat_template_utils._compile_jinja_template(source).environment.globals
        before = known["strftime_now"]
        known["strftime_now"] = strftime
        try:
            yield
        finally:
            known["strftime_now"] = before


@contextmanager
def attention_implementation(model: Any, name: str) -> Iterator[None]:
    """Within it, every part of a model attends by the implementation ``name``.

    ``set_attn_implementation`` would leave out layers that have a copy of the configuration, and
    would set all parts to one implementation afterwards.
    """
    configs = {id(config): config for config in _configs(model)}.values()
    before = [config._attn_implementation_internal for config in configs]
    try:
        for config in configs:
            config._attn_implementation_internal = name
        yield
    finally:
        for config, implementation in zip(configs, before, strict=True):
            config._attn_implementation_internal = implementation


def _configs(model: Any) -> Iterator[Any]:
    for module in model.modules():
        config = getattr(module, "config", None)
        if hasattr(config, "_attn_implementation_internal"):
            yield config
