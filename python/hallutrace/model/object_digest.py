"""A digest of a model and a tokenizer in memory, of all that affects the bytes of a trace."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch

PART = 64 * 2**20  # bytes per part; one thread hashes a part
# Fields of a configuration about its origin or loading, which no forward pass reads.
UNREAD = ("_name_or_path", "transformers_version", "architectures", "torch_dtype", "dtype")


def digest_object(model: Any, tokenizer: Any) -> str:
    """The digest of weights, configuration, adapters and tokenizer.

    It reads every parameter and buffer once, at about 0.7 GB per second and core; weights on a GPU
    are copied to the host one at a time.

    Args:
        model: a transformers model.
        tokenizer: a transformers tokenizer.

    Returns:
        ``object-`` and 16 hexadecimal digits.
    """
    whole = hashlib.blake2b(digest_size=8)
    config = {name: value for name, value in model.config.to_dict().items() if name not in UNREAD}
    for part in (type(model).__name__, config, _tokenizer(tokenizer), list(_adapters(model))):
        whole.update(json.dumps(part, sort_keys=True, default=str).encode() + b"\n")
    with ThreadPoolExecutor() as pool:
        for name, tensor in _tensors(model):
            whole.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
            data = memoryview(_bytes(tensor))
            parts = [data[begin : begin + PART] for begin in range(0, len(data), PART)]
            for digest in pool.map(_digest, parts):
                whole.update(digest)
    return f"object-{whole.hexdigest()}"


def _digest(part: memoryview) -> bytes:
    return hashlib.blake2b(part, digest_size=32).digest()


def _tensors(model: Any) -> Iterator[tuple[str, torch.Tensor]]:
    """Every tensor that a forward pass may read, with its name; tied weights once."""
    seen = set()
    # Both sources are needed: only the state dict has the scales of quantised weights, and only
    # named_buffers() has non-persistent buffers, such as the frequencies of rotary embeddings.
    for name, tensor in {**dict(model.named_buffers()), **model.state_dict()}.items():
        if not isinstance(tensor, torch.Tensor):
            continue
        key = (tensor.data_ptr(), tuple(tensor.shape), tensor.dtype)
        if tensor.numel() and key not in seen:
            seen.add(key)
            yield name, tensor


def _bytes(tensor: torch.Tensor) -> Any:
    return tensor.detach().contiguous().cpu().reshape(-1).view(torch.uint8).numpy()


def _tokenizer(tokenizer: Any) -> list[Any]:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    vocabulary = backend.to_str() if backend is not None else tokenizer.get_vocab()
    return [
        type(tokenizer).__name__,
        vocabulary,
        tokenizer.special_tokens_map,
        getattr(tokenizer, "chat_template", None),
    ]


def _adapters(model: Any) -> Iterator[list[Any]]:
    """State of the PEFT adapters in a model: which are active, merged or disabled, and scaling."""
    if "peft" not in sys.modules:  # without the import there can be no adapters
        return
    from peft.tuners.tuners_utils import BaseTunerLayer

    for name, module in model.named_modules():
        if isinstance(module, BaseTunerLayer):
            yield [
                name,
                type(module).__name__,
                list(module.active_adapters),
                module.disable_adapters,
                list(module.merged_adapters),
                dict(getattr(module, "scaling", {})),
            ]
