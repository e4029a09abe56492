"""Tokenizers that are odd in one way each, made from the tiny one."""

from __future__ import annotations

import json
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from tiny_models import tiny_tokenizer


def with_special(spelling: dict[str, str], chat: bool = False) -> PreTrainedTokenizerFast:
    """The tiny tokenizer with some of its characters made special tokens of another spelling.

    Args:
        spelling: of each character that becomes one, so that ids stay below the vocabulary.
        chat: whether it has a chat template.
    """
    plain = tiny_tokenizer(chat)
    content = json.loads(plain.backend_tokenizer.to_str())
    vocabulary = content["model"]["vocab"]
    for character, text in spelling.items():
        number = vocabulary.pop(character)
        vocabulary[text] = number
        content["added_tokens"].append(
            {**content["added_tokens"][0], "id": number, "content": text}
        )
    merges = content["model"]["merges"]
    content["model"]["merges"] = [pair for pair in merges if not {*pair} & {*spelling}]
    return remade(plain, content)


def remade(plain: PreTrainedTokenizerFast, content: dict[str, Any]) -> PreTrainedTokenizerFast:
    """A tokenizer of another content, with the special tokens and the chat template of a first."""
    fast = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(content)),
        pad_token="<pad>",
        bos_token="<bos>",
        eos_token="<eos>",
        unk_token="<unk>",
        clean_up_tokenization_spaces=False,
        padding_side="left",
    )
    fast.chat_template = plain.chat_template
    return fast


def ending_texts() -> PreTrainedTokenizerFast:
    """The tiny tokenizer, which also puts `<eos>` after every text."""
    plain = tiny_tokenizer()
    content = json.loads(plain.backend_tokenizer.to_str())
    ends = {"SpecialToken": {"id": "<eos>", "type_id": 0}}
    content["post_processor"]["single"].append(ends)
    content["post_processor"]["special_tokens"]["<eos>"] = {
        "id": "<eos>", "ids": [2], "tokens": ["<eos>"],
    }  # fmt: skip
    return remade(plain, content)


def of_bytes() -> PreTrainedTokenizerFast:
    """A tokenizer of single bytes: a character takes one token or several."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {"<eos>": 0, **{symbol: number for number, symbol in enumerate(alphabet, 1)}}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<eos>", clean_up_tokenization_spaces=False
    )
