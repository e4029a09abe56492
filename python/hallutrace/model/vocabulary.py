"""Checks that a tokenizer belongs to its model: vocabulary, embedding and EOS tokens."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from hallutrace.errors import ModelError

PROBE = "Who wrote it?"
# Fractions of the embedding rows without a token. Models pad the embedding by a few per cent.
UNUSED = 0.1  # above this there is a warning
EMPTY = 0.9  # above this the tokenizer is refused


def embedding_rows(model: Any) -> int:
    """Number of rows of the input embedding; valid token ids are smaller."""
    embedding = model.get_input_embeddings()
    rows = getattr(embedding, "num_embeddings", None)
    return int(rows if rows is not None else model.config.get_text_config().vocab_size)


def check_vocabulary(tokenizer: Any, rows: int, name: str) -> None:
    """Raises :class:`ModelError` for a tokenizer without a vocabulary.

    If the files of the tokenizer are missing, transformers makes one with only a few special
    tokens, which gives no tokens for any text.

    Args:
        tokenizer: the model's tokenizer.
        rows: number of rows of the model's embedding.
        name: the model's name, for the error message.

    Raises:
        ModelError: the tokenizer gives no tokens for a text, or has far fewer tokens than rows.
    """
    ids = tokenizer(PROBE, add_special_tokens=False)["input_ids"]
    if ids and len(tokenizer) >= (1 - EMPTY) * rows:
        return
    encoding = f"{PROBE!r} as {len(ids)} tokens" if ids else f"no token for {PROBE!r}"
    raise ModelError(
        f"Expected the tokenizer of {name}, got one of {len(tokenizer):,} tokens for an embedding "
        f"of {rows:,} ({encoding}) - put the tokenizer's files, such as tokenizer.json and "
        "tokenizer_config.json, beside the weights"
    )


def vocabulary_notes(tokenizer: Any, rows: int, eos_ids: Collection[int]) -> list[str]:
    """Warnings about differences between a tokenizer and its model.

    Args:
        tokenizer: the model's tokenizer.
        rows: number of rows of the model's embedding.
        eos_ids: the model's end-of-sequence tokens.
    """
    vocabulary = tokenizer.get_vocab()
    outside = sum(id_ >= rows for id_ in vocabulary.values())
    notes = []
    if outside:
        notes.append(
            f"The tokenizer has {outside:,} tokens that the model has no embedding for (of "
            f"{len(vocabulary):,}, embedding {rows:,}): questions with one of them fail"
        )
    elif len(vocabulary) < (1 - UNUSED) * rows:
        notes.append(
            f"The tokenizer has {len(vocabulary):,} tokens, the model {rows:,}: it may be the "
            "tokenizer of another model"
        )
    eos = tokenizer.eos_token_id
    if eos is not None and eos_ids and eos not in eos_ids:
        notes.append(
            f"The tokenizer ends a text with token {eos} ({tokenizer.eos_token}), the model with "
            f"{', '.join(map(str, sorted(eos_ids)))}: it may be the tokenizer of another model"
        )
    return notes


def padding_id(tokenizer: Any, rows: int, eos_ids: Collection[int]) -> int:
    """A token id for padding; padding is masked, so any id with an embedding works."""
    candidates = [tokenizer.pad_token_id, *sorted(eos_ids), 0]
    return int(next(id_ for id_ in candidates if id_ is not None and 0 <= id_ < rows))
