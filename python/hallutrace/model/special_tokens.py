"""How the special tokens of a tokenizer are spelled."""

from __future__ import annotations

from typing import Any


def special_texts(tokenizer: Any) -> list[str]:
    """Special tokens as text, such as ``<|im_end|>``; plain words and spaces mark nothing."""
    added = getattr(tokenizer, "added_tokens_decoder", {})
    texts = {str(token) for token in added.values() if getattr(token, "special", False)}
    texts |= {str(token) for token in getattr(tokenizer, "all_special_tokens", [])}
    return sorted(text for text in texts if len(text) >= 3 and not text.strip().isalnum())
