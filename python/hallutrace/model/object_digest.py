"""One digest for a model and a tokenizer in memory: what decides the bytes of their traces."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch

PART = 64 * 2**20  # bytes that one thread hashes
# What a configuration says of its origin, or of how it was loaded, and no pass reads.
UNREAD = ("_name_or_path", "transformers_version", "architectures", "torch_dtype", "dtype")


def digest_object(model: Any, tokenizer: Any) -> str:
    """``object-`` and 16 hexadecimal digits, of weights, configuration, adapters and tokenizer.

    It reads every parameter and buffer once, about 0.7 GB a second and core; weights on a GPU are
    copied to the host, one at a time.

    Args:
        model: of transformers.
        tokenizer: of transformers.
    """
    whole = hashlib.blake2b(digest_size=8)
    config = {name: value for name, value in model.config.to_dict().items() if name not in UNREAD}
    for part in (type(model).__name__, config, _tokenizer(tokenizer), list(_adapters(model))):
        whole.update(json.dumps(part, sort_keys=True, default=str).encode() + b"\n")
    with ThreadPoolExecutor() as pool:
        for name, tensor in _tensors(model):
            whole.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
            data = memoryview(_bytes(tensor))
            parts = [data[at : at + PART] for at in range(0, len(data), PART)]
            for digest in pool.map(_digest, parts):
                whole.update(digest)
    return f"object-{whole.hexdigest()}"


def _digest(part: memoryview) -> bytes:
    return hashlib.blake2b(part, digest_size=32).digest()


def _tensors(model: Any) -> Iterator[tuple[str, torch.Tensor]]:
    """Every tensor that a forward pass may read, by name; tied weights come once."""
    seen = set()
    # The state has what quantised weights keep beside their bytes, and no buffers that are not
    # saved, such as the frequencies of rotary embeddings.
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
    """How the adapters of peft in a model act: which are active, how strong, and whether at all."""
    if "peft" not in sys.modules:  # whoever has adapters of it has imported it
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
