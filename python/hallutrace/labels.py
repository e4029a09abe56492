"""Judging an answer against the references of its question."""

from __future__ import annotations

import re
import string
from collections.abc import Iterable

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans(dict.fromkeys(string.punctuation + "‘’´`", " "))


def normalize(text: str) -> str:
    """Lower case, without punctuation and articles, single spaces.

    Args:
        text: any text.

    Returns:
        The words of the text, as they are compared.

    Source:
        Joshi et al. 2017, TriviaQA, evaluation script (normalisation of answers).
    """
    words = _ARTICLES.sub(" ", text.lower().replace("_", " ").translate(_PUNCTUATION))
    return " ".join(words.split())


def contains(answer: str, references: Iterable[str]) -> bool:
    """Whether the answer holds one of the references as whole words, after normalisation.

    Args:
        answer: what the model said.
        references: right answers; one that normalises to nothing never matches.

    Returns:
        True if any reference is in the answer.
    """
    said = f" {normalize(answer)} "
    return any(words and f" {words} " in said for words in map(normalize, references))
