"""Makes the small model in the package: `python -m demo_model.train`, or `make demo-model`.

A tokenizer and a Qwen3 model of 1.4 million parameters are trained from scratch on the text of a
made-up world, one pass, on two idle cores in some six minutes. Everything follows from the seed.
The figures that it must reach again, and their tolerances, are in `measure`.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from demo_model.measure import format_figures, measure
from demo_model.relations import RELATIONS
from demo_model.text import FIRM, SOFT, Line, write_lines
from demo_model.world import DEFAULT_SEED, World, build_world, shuffled
from hallutrace.demo import MODEL_FOLDER, PROMPT_TEMPLATE

VOCABULARY = 1024
PAD, EOS = "<pad>", "<eos>"
WORD_REPEATS = 150
VALUE_REPEATS = {
    "born": 75, "trade": 110, "dish": 75, "instrument": 110, "river": 110, "feast": 75, "lord": 75
}  # fmt: skip
"""How often the tokenizer sees each value: the more often, the fewer tokens it becomes. Values of
one and of four tokens make answers of one to six, without which the mean log-probability would be
too good a sign."""

BATCH = 64
PEAK_RATE, FINAL_SHARE, WARM_UP = 2.5e-3, 0.02, 60
PROMPT_WEIGHT = 0.1
"""Weight of the loss on prompt tokens: enough to learn names, little enough to learn answers."""
REPORT_EVERY = 100


@dataclass(frozen=True)
class Example:
    """One line as tokens; the answer, with its <eos>, begins at `answer_start`."""

    tokens: list[int]
    answer_start: int


def train_tokenizer(world: World) -> PreTrainedTokenizerFast:
    """Byte-level BPE on every question once, and on values, hedges and words of answers.

    All values of a relation are seen equally often, whatever their popularity, so that the number
    of tokens of an answer does not tell how likely it is.
    """
    values = [
        f" {value.text}"
        for relation in RELATIONS
        for value in relation.values * VALUE_REPEATS[relation.name]
    ]
    hedges = [f" {hedge}" for kind in (FIRM, SOFT) for hedge in (*kind.openings, *kind.endings)]
    words = [
        f" {word}"
        for relation in RELATIONS
        for template in relation.templates
        for form, _ in template.forms
        for word in form.format(value="", a="a").split()
    ]
    corpus = [PROMPT_TEMPLATE.format(question=fact.question) for fact in world.facts]
    corpus += values + (hedges + words) * WORD_REPEATS
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[PAD, EOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=EOS,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )


def new_model(tokenizer: PreTrainedTokenizerFast) -> Qwen3ForCausalLM:
    """An untrained model: 4 layers, 8 query heads over 4 key-value heads, tied embeddings."""
    config = Qwen3Config(
        vocab_size=VOCABULARY,
        hidden_size=160,
        intermediate_size=512,
        num_hidden_layers=4,
        num_attention_heads=8,
        num_key_value_heads=4,
        head_dim=16,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
        use_cache=True,
    )
    return Qwen3ForCausalLM(config)


def encode(lines: Sequence[Line], tokenizer: PreTrainedTokenizerFast) -> list[Example]:
    """Lines as tokens: prompt, answer, <eos>."""
    prompts = tokenizer([PROMPT_TEMPLATE.format(question=line.question) for line in lines])
    answers = tokenizer([f" {line.answer}{EOS}" for line in lines])
    return [
        Example(prompt + answer, len(prompt))
        for prompt, answer in zip(prompts["input_ids"], answers["input_ids"], strict=True)
    ]


def batches(examples: list[Example], random: Random) -> list[list[Example]]:
    """All examples once, batched with others of their length, batches in random order."""
    by_length = sorted(shuffled(examples, random), key=lambda example: len(example.tokens))
    starts = range(0, len(by_length) - BATCH + 1, BATCH)
    return shuffled([by_length[start : start + BATCH] for start in starts], random)


def to_tensors(batch: list[Example], pad: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A batch padded on the right, which causal attention never sees.

    Returns:
        tokens [examples, length] and the weight of the loss on each, zero on padding.
    """
    length = max(len(example.tokens) for example in batch)
    tokens = torch.full((len(batch), length), pad)
    weights = torch.zeros(len(batch), length)
    for row, example in enumerate(batch):
        end = len(example.tokens)
        tokens[row, :end] = torch.tensor(example.tokens)
        weights[row, : example.answer_start] = PROMPT_WEIGHT
        weights[row, example.answer_start : end] = 1.0
    return tokens, weights


def rate_at(step: int, steps: int) -> float:
    """Learning rate: linear warm-up, then a cosine down to `FINAL_SHARE` of the peak."""
    if step < WARM_UP:
        return PEAK_RATE * (step + 1) / WARM_UP
    way = (step - WARM_UP) / max(1, steps - WARM_UP)
    return PEAK_RATE * (FINAL_SHARE + (1 - FINAL_SHARE) * 0.5 * (1 + math.cos(math.pi * way)))


def loss_of(model: Qwen3ForCausalLM, tokens: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Weighted mean cross-entropy of the next token."""
    logits = model(input_ids=tokens[:, :-1], use_cache=False).logits
    losses = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), tokens[:, 1:].flatten(), reduction="none"
    )
    weights = weights[:, 1:].flatten()
    return (losses * weights).sum() / weights.sum()


def training_steps(
    model: Qwen3ForCausalLM, plan: list[list[Example]], pad: int
) -> Iterator[tuple[int, float]]:
    """Train on the batches, once each; yields step and loss."""
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=PEAK_RATE, betas=(0.9, 0.98), weight_decay=0.01
    )
    model.train()
    for step, batch in enumerate(plan):
        for group in optimizer.param_groups:
            group["lr"] = rate_at(step, len(plan))
        loss = loss_of(model, *to_tensors(batch, pad))
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        yield step + 1, loss.item()


def train(model: Qwen3ForCausalLM, plan: list[list[Example]], pad: int) -> None:
    """Train, and say how far it has come."""
    started, total = time.monotonic(), 0.0
    for step, loss in training_steps(model, plan, pad):
        total += loss
        if step % REPORT_EVERY == 0 or step == len(plan):
            since_last = (step - 1) % REPORT_EVERY + 1
            left = (time.monotonic() - started) / step * (len(plan) - step)
            mean = total / since_last
            print(f"step {step:5}/{len(plan)}  loss {mean:.3f}  {left:4.0f} s left", flush=True)
            total = 0.0


def save(
    folder: Path, model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast, world: World
) -> None:
    """Write `model/` in float16 and `questions.jsonl`."""
    model.generation_config.do_sample = False
    model.to(torch.float16).save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    for file in (folder / "model").iterdir():
        file.chmod(0o644)  # weights are written readable to their owner alone; these ship
    rows = [json.dumps(fact.row(), ensure_ascii=False) + "\n" for fact in world.facts]
    (folder / "questions.jsonl").write_text("".join(rows), encoding="utf-8")


def make(seed: int, folder: Path) -> None:
    """Draw the world, train the model, save both, measure what came out."""
    torch.set_num_threads(2)
    torch.manual_seed(seed)
    folder.mkdir(parents=True, exist_ok=True)
    world = build_world(seed)
    tokenizer = train_tokenizer(world)
    model = new_model(tokenizer)
    print(f"{len(world.facts)} questions, {model.num_parameters():,} parameters", flush=True)
    examples = encode(write_lines(world, seed), tokenizer)
    train(model, batches(examples, Random(f"batches {seed}")), tokenizer.pad_token_id)
    save(folder, model, tokenizer, world)
    figures = measure(folder / "model", folder / "questions.jsonl")
    (folder / "figures.json").write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    print(format_figures(figures))


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m demo_model.train",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="Try another seed without touching the package: --seed 2 --out /tmp/demo-2",
    )
    parser.add_argument(
        "--seed",
        type=int,
        default=DEFAULT_SEED,
        help="draws the world, its text and the first weights (default: %(default)s)",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=MODEL_FOLDER.parent,
        help="where model/, questions.jsonl and figures.json go (default: the package itself)",
    )
    arguments = parser.parse_args()
    make(arguments.seed, arguments.out)


if __name__ == "__main__":
    main()
