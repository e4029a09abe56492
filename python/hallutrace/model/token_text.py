"""The text of single tokens, including tokens that hold only some bytes of a character."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

UNKNOWN = "\ufffd"  # the replacement character of decoders for invalid UTF-8
_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")


def token_texts(tokenizer: Any, ids: Iterable[int]) -> list[str]:
    r"""The text of each token; the bytes of an incomplete character are escaped: ``\xe4``.

    Args:
        tokenizer: a ``tokenizers.Tokenizer``.
        ids: token ids.
    """
    added = {id_: str(token.content) for id_, token in tokenizer.get_added_tokens_decoder().items()}
    return [added.get(id_) or _text(tokenizer, id_) for id_ in ids]


def _text(tokenizer: Any, id_: int) -> str:
    text: str = tokenizer.decode([id_], skip_special_tokens=False)
    if UNKNOWN not in text:
        return text
    name = tokenizer.id_to_token(id_)
    content = None if name is None else _bytes(name)
    return text if content is None else content.decode("utf-8", "backslashreplace")


def _bytes(name: str) -> bytes | None:
    """The bytes that a token's name in the vocabulary encodes; None if it encodes none."""
    if match := _BYTE.fullmatch(name):
        return bytes([int(match[1], 16)])
    if all(character in _BYTE_OF for character in name):
        return bytes(_BYTE_OF[character] for character in name)
    return None


def _byte_names() -> dict[str, int]:
    """The byte of each character that byte-level tokenizers use for bytes.

    Source: ours, after GPT-2's tokenizer: a byte that is a visible character of Latin-1 is written
    as that character; the other bytes, in order, as the characters from 256 on.
    """
    visible = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    names, others = {}, 0
    for byte in range(256):
        names[chr(byte if byte in visible else 256 + others)] = byte
        others += byte not in visible
    return names


_BYTE_OF = _byte_names()
