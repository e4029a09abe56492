"""Whether a tokenizer belongs to its model: sizes of vocabulary and embedding, tokens that end."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from hallutrace.errors import ModelError

PROBE = "Who wrote it?"
# Embeddings are often rounded up, by a few per cent at most.
UNUSED = 0.1  # share of an embedding without tokens from which it is said
EMPTY = 0.9  # share from which the tokenizer cannot be the model's


def embedding_rows(model: Any) -> int:
    """Token ids that a model takes: 0 to this, not included."""
    embedding = model.get_input_embeddings()
    rows = getattr(embedding, "num_embeddings", None)
    return int(rows if rows is not None else model.config.get_text_config().vocab_size)


def check_vocabulary(tokenizer: Any, rows: int, name: str) -> None:
    """Refuses a tokenizer without its vocabulary.

    Where its files are missing transformers makes one of a few special tokens, which turns every
    text into nothing.

    Args:
        tokenizer: of the model.
        rows: of its embedding.
        name: of the model.

    Raises:
        ModelError: a tokenizer that says next to nothing.
    """
    ids = tokenizer(PROBE, add_special_tokens=False)["input_ids"]
    if ids and len(tokenizer) >= (1 - EMPTY) * rows:
        return
    said = f"{PROBE!r} as {len(ids)} tokens" if ids else f"no token for {PROBE!r}"
    raise ModelError(
        f"Expected the tokenizer of {name}, got one of {len(tokenizer):,} tokens for an embedding "
        f"of {rows:,} ({said}) - put the tokenizer's files, such as tokenizer.json and "
        "tokenizer_config.json, beside the weights"
    )


def vocabulary_notes(tokenizer: Any, rows: int, eos_ids: Collection[int]) -> list[str]:
    """Lines that say where a tokenizer and its model do not agree.

    Args:
        tokenizer: of the model.
        rows: of its embedding.
        eos_ids: tokens that end an answer.
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
    end = tokenizer.eos_token_id
    if end is not None and eos_ids and end not in eos_ids:
        notes.append(
            f"The tokenizer ends a text with token {end} ({tokenizer.eos_token}), the model with "
            f"{', '.join(map(str, sorted(eos_ids)))}: it may be the tokenizer of another model"
        )
    return notes


def padding_id(tokenizer: Any, rows: int, eos_ids: Collection[int]) -> int:
    """A token to fill up batches: masked, so any will do that the embedding has."""
    candidates = [tokenizer.pad_token_id, *sorted(eos_ids), 0]
    return int(next(id_ for id_ in candidates if id_ is not None and 0 <= id_ < rows))
