"""The text of a run's tokens, where the tokenizer can be had without a network."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

TextsOf = Callable[[Iterable[int]], list[str]]


def texts_of(model: str) -> TextsOf | None:
    """What writes the tokens of a model as text.

    Args:
        model: its name or folder, as in the manifest.

    Returns:
        A function from token ids to texts; None where that takes a network.

    Examples:
        >>> texts_of("demo")([0]), texts_of("no/such-model")
        (['<pad>'], None)
    """
    from hallutrace.demo import MODEL_FOLDER

    folder = MODEL_FOLDER if model == "demo" else Path(model)
    file: Any = folder / "tokenizer.json"
    if not file.is_file():
        from huggingface_hub import try_to_load_from_cache

        is_repo = model.count("/") <= 1 and not Path(model).is_absolute()
        file = try_to_load_from_cache(model, "tokenizer.json") if is_repo else None
    if not isinstance(file, (str, Path)):
        return None
    from tokenizers import Tokenizer

    from hallutrace.model.token_text import token_texts

    return partial(token_texts, Tokenizer.from_file(str(file)))


def ids_as_text(ids: Iterable[int]) -> list[str]:
    """Token ids where there is no text.

    Examples:
        >>> ids_as_text([5, 17])
        ['#5', '#17']
    """
    return [f"#{id_}" for id_ in ids]
