"""Asks the small model questions and looks inside while it answers, with plain transformers."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModelForCausalLM, AutoTokenizer

from hallutrace.demo import PROMPT_TEMPLATE
from hallutrace.text_measures import contains

BATCH = 256
MAX_NEW_TOKENS = 16


@dataclass(frozen=True)
class Answer:
    """One greedy answer and what the model's insides looked like when it gave it.

    Attributes:
        row: the question, as questions.jsonl has it.
        prompt: tokens of the prompt.
        tokens: tokens of the answer, with <eos> if it came.
        length: tokens of the answer, <eos> not counted.
        text: the answer without <eos>.
        logprobs: float32 [answer tokens], at temperature 1.
        first_entropy: nats, of the distribution that the first answer token came from.
        prompt_state: float32 [layers, features], outputs of the blocks at the last prompt token.
        answer_state: the same at the last answer token that is not <eos>.
    """

    row: dict[str, Any]
    prompt: list[int]
    tokens: list[int]
    length: int
    text: str
    logprobs: NDArray[np.float32]
    first_entropy: float
    prompt_state: NDArray[np.float32]
    answer_state: NDArray[np.float32]

    @cached_property
    def is_right(self) -> bool:
        """Whether it holds a right answer as whole words."""
        return contains(self.text, self.row["answers"])


def generate(model: Any, prompts: torch.Tensor) -> list[list[int]]:
    """Greedy answers, each up to and with its first <eos>.

    Args:
        model: the model.
        prompts: int64 [questions, tokens], all of one length, so that nothing is padded.
    """
    out = model.generate(
        prompts,
        attention_mask=torch.ones_like(prompts),
        do_sample=False,
        max_new_tokens=MAX_NEW_TOKENS,
    )
    eos = model.config.eos_token_id
    answers = out[:, prompts.shape[1] :].tolist()
    return [answer[: answer.index(eos) + 1] if eos in answer else answer for answer in answers]


def replay(model: Any, tokenizer: Any, row: dict[str, Any], prompt: list[int],
           tokens: list[int]) -> Answer:  # fmt: skip
    """One clean forward pass over prompt and answer."""
    out = model(torch.tensor([prompt + tokens]), output_hidden_states=True, use_cache=False)
    producing = out.logits[0, len(prompt) - 1 : -1].float().log_softmax(-1)
    states = torch.stack(out.hidden_states[1:])[:, 0].float().numpy()
    length = len(tokens) - (tokens[-1] == model.config.eos_token_id)
    return Answer(
        row=row,
        prompt=prompt,
        tokens=tokens,
        length=length,
        text=tokenizer.decode(tokens[:length]).strip(),
        logprobs=producing[range(len(tokens)), tokens].numpy(),
        first_entropy=-float((producing[0].exp() * producing[0]).sum()),
        prompt_state=states[:, len(prompt) - 1],
        answer_state=states[:, len(prompt) + length - 1],
    )


@torch.inference_mode()
def ask_all(model_folder: Path, rows: list[dict[str, Any]]) -> list[Answer]:
    """Ask every question.

    Args:
        model_folder: model and tokenizer.
        rows: questions, as questions.jsonl has them.

    Returns:
        The answers in the order of the questions.
    """
    tokenizer: Any = AutoTokenizer.from_pretrained(model_folder)
    model = AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32).eval()
    prompts = [
        tokenizer(PROMPT_TEMPLATE.format(question=row["question"])).input_ids for row in rows
    ]
    by_length: dict[int, list[int]] = defaultdict(list)
    for i, prompt in enumerate(prompts):
        by_length[len(prompt)].append(i)
    answers: dict[int, Answer] = {}
    for same_length in by_length.values():
        for start in range(0, len(same_length), BATCH):
            batch = same_length[start : start + BATCH]
            spoken = generate(model, torch.tensor([prompts[i] for i in batch]))
            for i, tokens in zip(batch, spoken, strict=True):
                answers[i] = replay(model, tokenizer, rows[i], prompts[i], tokens)
    return [answers[i] for i in range(len(rows))]
