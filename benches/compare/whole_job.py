"""Traces a second and bytes a trace, against the way of the version before, in one run.

    python benches/compare/whole_job.py                     # 596M shape, minutes
    python benches/compare/whole_job.py --model demo --old 40 --new 400

The way before: one question at a time, beams in eager attention, one eager forward with everything
kept in float16, a gzip-6 pickle a trace. Both ways answer the same questions with the same model,
beams and tokens in one process; loading the model is left out.
"""

from __future__ import annotations

import argparse
import gzip
import json
import pickle
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))
from whole_run import save_random

LEVEL = 6  # of gzip
BEAMS = 5


def old_way(model: Any, tokenizer: Any, prompts: list[str], tokens: int, folder: Path) -> float:
    """Seconds for all prompts, each a pickle in the folder."""
    import torch

    model.set_attn_implementation("eager")
    began = time.perf_counter()
    for number, prompt in enumerate(prompts):
        ids = tokenizer(prompt, return_tensors="pt")["input_ids"]
        with torch.inference_mode():
            made = model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                num_beams=BEAMS,
                do_sample=False,
                max_new_tokens=tokens,
                pad_token_id=tokenizer.pad_token_id or 0,
            )
            output = model(
                input_ids=made, use_cache=False, output_attentions=True, output_hidden_states=True
            )
        trace = {
            "prompt": prompt,
            "answer": tokenizer.decode(made[0, ids.shape[1] :], skip_special_tokens=True),
            "tokens": made[0].numpy(),
            "attentions": [layer[0].half().numpy() for layer in output.attentions],
            "hidden_states": [layer[0].half().numpy() for layer in output.hidden_states],
        }
        with gzip.open(folder / f"{number:05d}.pkl.gz", "wb", compresslevel=LEVEL) as file:
            pickle.dump(trace, file, protocol=pickle.HIGHEST_PROTOCOL)
    return time.perf_counter() - began


def new_way(
    name: str, tokens: int, questions: int, out: Path, hidden: str, batch: str
) -> tuple[Any, dict[str, float]]:
    """The summary of an extraction of the same, and the share of its time in each step."""
    from hallutrace import ExtractConfig, extract
    from hallutrace.capture import replay
    from hallutrace.model import generate

    spent = {"generation": 0.0, "replay": 0.0}
    whole = generate.generate, replay.replay
    generate.generate = _timed(whole[0], spent, "generation")
    replay.replay = _timed(whole[1], spent, "replay")
    try:
        summary = extract(
            ExtractConfig.from_options(
                {
                    "model": name,
                    "questions": f"demo:{questions}",
                    "num_beams": BEAMS,
                    "max_new_tokens": tokens,
                    "hidden_states": hidden,
                    "hidden_dtype": "float16",
                    "batch_size": batch,
                    "chat": "off",
                    "out": out,
                }
            )
        )
    finally:
        generate.generate, replay.replay = whole
    return summary, {step: seconds / summary.seconds for step, seconds in spent.items()}


def _timed(function: Any, spent: dict[str, float], step: str) -> Any:
    def timed(*arguments: Any, **options: Any) -> Any:
        began = time.perf_counter()
        try:
            return function(*arguments, **options)
        finally:
            spent[step] += time.perf_counter() - began

    return timed


def main() -> None:
    """Prints one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", choices=["0.6b", "demo"], default="0.6b")
    parser.add_argument("--tokens", type=int, default=64, help="new tokens")
    parser.add_argument("--old", type=int, default=4, help="questions of the way before")
    parser.add_argument("--new", type=int, default=32, help="questions of hallutrace")
    parser.add_argument("--batch-size", default="auto")
    arguments = parser.parse_args()
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from hallutrace.demo import MODEL_FOLDER

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        where = MODEL_FOLDER
        if arguments.model == "0.6b":
            where = folder / "model"
            save_random(where)
        tokenizer = AutoTokenizer.from_pretrained(where)
        runs = {
            hidden: new_way(
                "demo" if arguments.model == "demo" else str(where),
                arguments.tokens,
                arguments.new,
                folder / hidden,
                hidden,
                arguments.batch_size,
            )
            for hidden in ("answer", "none")
        }
        prompts = [trace.prompt for trace in _first(folder / "answer", arguments.old)]
        model = AutoModelForCausalLM.from_pretrained(where, dtype="float32").eval()
        pickles = folder / "pickles"
        pickles.mkdir()
        seconds = old_way(model, tokenizer, prompts, arguments.tokens, pickles)
        old_bytes = sum(path.stat().st_size for path in pickles.iterdir()) / len(prompts)
        sizes = {hidden: run.bytes / run.traces for hidden, (run, _) in runs.items()}
        rates = {hidden: run.traces / run.seconds for hidden, (run, _) in runs.items()}
        shares = {hidden: share for hidden, (_, share) in runs.items()}
        print(
            json.dumps(
                {
                    "model": arguments.model,
                    "tokens": arguments.tokens,
                    "traces a second": {"before": len(prompts) / seconds, **rates},
                    "times as fast": {
                        hidden: rate * seconds / len(prompts) for hidden, rate in rates.items()
                    },
                    "share of the time": shares,
                    "bytes a trace": {"before": old_bytes, **sizes},
                    "times as small": {hidden: old_bytes / size for hidden, size in sizes.items()},
                }
            )
        )


def _first(run: Path, count: int) -> list[Any]:
    import hallutrace

    return hallutrace.open(run)[:count]


if __name__ == "__main__":
    main()
