"""The replay with capture and all reductions beside the plain forward pass, and beside eager.

    python benches/replay.py                         # 112 x 8, 2,048 and 8,192 tokens
    python benches/replay.py --case 2048 --memory    # peak memory of each way, in own processes

The models are random Qwen3 in float32; all ways compute logits for the answer rows alone. Times are
minima of alternating repeats, so that both ways meet the same machine.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

QWEN3_06B = {
    "vocab_size": 151_936,
    "hidden_size": 1024,
    "intermediate_size": 3072,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "tie_word_embeddings": True,
}
QWEN3_177M = QWEN3_06B | {"vocab_size": 20_000}

# name: (tokens, batch, layers, shape, repeats)
CASES: dict[str, tuple[int, int, int, dict[str, Any], int]] = {
    "112": (112, 8, 28, QWEN3_06B, 5),
    "2048": (2048, 1, 12, QWEN3_06B, 5),
    "8192": (8192, 1, 4, QWEN3_06B, 3),
    "8192-deep": (8192, 1, 12, QWEN3_177M, 1),
}
ANSWER = 12  # tokens at the end that are the answer


def ways(case: str) -> dict[str, Callable[[], Any]]:
    """The ways to run one case, over one model."""
    import torch
    from transformers import AutoTokenizer, Qwen3Config, Qwen3ForCausalLM

    from hallutrace.capture import replay
    from hallutrace.demo import MODEL_FOLDER
    from hallutrace.model.loading import describe

    tokens, batch, layers, shape, _ = CASES[case]
    torch.manual_seed(0)
    model = Qwen3ForCausalLM(Qwen3Config(**shape, num_hidden_layers=layers)).eval()
    tokenizer = AutoTokenizer.from_pretrained(MODEL_FOLDER)
    loaded = describe(model, tokenizer, "qwen3", "random")
    prompt = tokens - ANSWER
    texts = [
        replay.Text(torch.randint(0, 20_000, (tokens,)).tolist(), prompt, [1, prompt])
        for _ in range(batch)
    ]
    ids = torch.tensor([text.tokens for text in texts])

    def forward(attention: str) -> Any:
        model.set_attn_implementation(attention)
        with torch.inference_mode(), replay.answer_rows(model, texts):
            return model(input_ids=ids, use_cache=False, output_attentions=attention == "eager")

    return {
        "sdpa": lambda: forward("sdpa"),
        "replay": lambda: replay.replay(loaded, texts, replay.Reduction()),
        "eager": lambda: forward("eager"),
    }


def compare(case: str) -> dict[str, Any]:
    """Least seconds of each way; eager only where its attention fits into memory."""
    tokens, _, _, _, repeats = CASES[case]
    all_ways = ways(case)
    names = ["sdpa", "replay", *(["eager"] if tokens <= 2048 else [])]
    least = dict.fromkeys(names, float("inf"))
    for _ in range(repeats):
        for name in names:
            began = time.perf_counter()
            all_ways[name]()
            least[name] = min(least[name], time.perf_counter() - began)
    ratios = {
        f"replay / {name}": least["replay"] / least[name] for name in names if name != "replay"
    }
    return {"case": case, "seconds": least, "ratios": ratios}


def peak_memory(case: str, way: str) -> int:
    """Bytes that one run of a way adds to the resident memory at its peak, in this process."""
    run = ways(case)[way]
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    before = _status("VmRSS")
    run()
    return _status("VmHWM") - before


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


def main() -> None:
    """Prints one line of JSON a case."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--case", choices=CASES, action="append")
    parser.add_argument("--memory", action="store_true", help="peak memory instead of time")
    parser.add_argument("--way", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    for case in arguments.case or ["112", "2048", "8192"]:
        if arguments.way:
            print(peak_memory(case, arguments.way))
        elif arguments.memory:
            names = ["sdpa", "replay", *(["eager"] if CASES[case][0] <= 2048 else [])]
            peaks = {}
            for way in names:
                command = [sys.executable, __file__, "--case", case, "--way", way]
                done = subprocess.run(command, check=True, capture_output=True, text=True)
                peaks[way] = int(done.stdout) / 1e6
            print(json.dumps({"case": case, "added MB at the peak": peaks}))
        else:
            print(json.dumps(compare(case)))


if __name__ == "__main__":
    main()
