"""The special tokens of a tokenizer as text."""

from __future__ import annotations

from typing import Any


def special_texts(tokenizer: Any) -> list[str]:
    """Special tokens such as ``<|im_end|>``, sorted; plain words and short tokens are left out.

    Those also occur in ordinary text.
    """
    added = getattr(tokenizer, "added_tokens_decoder", {})
    texts = {str(token) for token in added.values() if getattr(token, "special", False)}
    texts |= {str(token) for token in getattr(tokenizer, "all_special_tokens", [])}
    return sorted(text for text in texts if len(text) >= 3 and not text.strip().isalnum())
