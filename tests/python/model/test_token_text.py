"""Tokens as text: parts of characters are bytes, whole ones are what they are."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer
from tokenizers.decoders import ByteFallback, ByteLevel, Fuse, Sequence
from tokenizers.models import BPE, WordLevel
from tokenizers.pre_tokenizers import ByteLevel as ByteLevelSplit

from hallutrace.model.token_text import _BYTE_OF, token_texts


def byte_level() -> Tokenizer:
    """One token for each byte."""
    alphabet = sorted(ByteLevelSplit.alphabet())
    tokenizer = Tokenizer(BPE(vocab={name: at for at, name in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = ByteLevelSplit(add_prefix_space=False)
    tokenizer.decoder = ByteLevel()
    tokenizer.add_special_tokens(["<end>", "é"])
    return tokenizer


def byte_fallback() -> Tokenizer:
    vocab = {f"<0x{byte:02X}>": byte for byte in range(256)}
    tokenizer = Tokenizer(WordLevel(vocab={**vocab, "you": 256}, unk_token="you"))
    tokenizer.decoder = Sequence([ByteFallback(), Fuse()])
    return tokenizer


def test_the_names_of_bytes_are_those_of_the_library() -> None:
    assert set(_BYTE_OF) == set(ByteLevelSplit.alphabet())
    tokenizer = byte_level()
    for name, byte in _BYTE_OF.items():
        if byte < 128:
            assert tokenizer.decode([tokenizer.token_to_id(name)]) == chr(byte)


def test_parts_of_characters_are_bytes() -> None:
    tokenizer = byte_level()
    ids = tokenizer.encode("a 北!<end>é").ids
    assert token_texts(tokenizer, ids) == ["a", " ", r"\xe5", r"\x8c", r"\x97", "!", "<end>", "é"]
    assert token_texts(byte_fallback(), [0xE5, 0x41, 256]) == [r"\xe5", "A", "you"]


@given(st.text(max_size=20))
def test_no_character_is_unknown_that_was_not(text: str) -> None:
    tokenizer = byte_level()
    said = token_texts(tokenizer, tokenizer.encode(text).ids)
    assert "\ufffd" not in "".join(said)
