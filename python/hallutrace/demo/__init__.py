"""The small model in the package: its folder, its questions and how to ask it.

It was trained on one half of the facts of a made-up world, and answers questions about the other
half just as fluently, and wrongly. `README.md` beside this file says how it was made and what its
figures mean; `make demo-model` in the repository makes it again.
"""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path
from typing import Any

MODEL_FOLDER: Path = Path(__file__).parent / "model"
"""Model and tokenizer, for `from_pretrained`."""

QUESTIONS_FILE: Path = Path(__file__).parent / "questions.jsonl"
"""All questions, one JSON object a line, in a fixed shuffled order."""

FIGURES_FILE: Path = Path(__file__).parent / "figures.json"
"""What `make demo-figures` found for the model in the package."""

PROMPT_TEMPLATE: str = "Q: {question}\nA:"
"""The format of questions in its training text; answers begin with a space, end with <eos>."""


def read_questions(count: int | None = None) -> list[dict[str, Any]]:
    """Read the questions of the small model.

    Args:
        count: how many, from the start of the fixed shuffled order; None for all.

    Returns:
        Rows with `id`, `question`, `answers` (right ones, the canonical first), `group` (the entity
        asked about) and `held_out` (whether the fact was kept out of the training text).

    Examples:
        >>> sorted(read_questions(1)[0])
        ['answers', 'group', 'held_out', 'id', 'question']
    """
    with QUESTIONS_FILE.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in islice(lines, count)]
