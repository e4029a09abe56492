"""A whole extraction as a process of its own: time, traces a second, peak resident memory.

    python benches/whole_run.py                 # a random Qwen3 of the 0.6B shape, 5 beams, 64
    tokens python benches/whole_run.py --model demo    # the bare command

The random model has no weights to fetch; it answers nonsense of full length, which costs the same.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

# Shape of Qwen3-0.6B, from its published configuration: 596 million parameters.
QWEN3_06B = {
    "vocab_size": 151_936,
    "hidden_size": 1024,
    "intermediate_size": 3072,
    "num_hidden_layers": 28,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "tie_word_embeddings": True,
}


def save_random(folder: Path) -> None:
    """Saves a random model of that shape with the small model's tokenizer."""
    import torch
    from transformers import AutoTokenizer, Qwen3Config, Qwen3ForCausalLM

    from hallutrace.demo import MODEL_FOLDER

    tokenizer = AutoTokenizer.from_pretrained(MODEL_FOLDER)
    torch.manual_seed(0)
    model = Qwen3ForCausalLM(Qwen3Config(**QWEN3_06B))
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    # Biasing nothing, a random model hardly ever says <eos>: answers have their full length.
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def main() -> None:
    """Runs one extraction and prints what it took."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", choices=["0.6b", "demo"], default="0.6b")
    parser.add_argument("--limit", default="8", help="questions, for 0.6b")
    parser.add_argument("--json", type=Path, help="append the record to this file, a line")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        installed = shutil.which("hallutrace", path=str(Path(sys.executable).parent))
        command = [installed or "hallutrace", "extract", "--out", f"{folder}/run"]
        if arguments.model == "0.6b":
            save_random(Path(folder) / "model")
            command += ["--model", f"{folder}/model", "--limit", arguments.limit]
            command += ["--num-beams", "5", "--max-new-tokens", "64", "--batch-size", "4"]
        began = time.perf_counter()
        peak = run(command)
        seconds = time.perf_counter() - began
        record: dict[str, Any] = {
            "bench": "whole_run",
            "model": arguments.model,
            "seconds": round(seconds, 1),
            "peak_resident_gb": round(peak / 1e9, 2),
            **figures(Path(folder) / "run", seconds),
            "machine": {"processor": platform.machine(), "cores": os.cpu_count()},
        }
    print(json.dumps(record))
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        with arguments.json.open("a") as file:
            file.write(json.dumps(record) + "\n")


def run(command: list[str]) -> int:
    """Runs a command; the most resident memory it had, in bytes.

    Read from the process itself: what the system keeps of children also counts what this process
    had when it made them.
    """
    process = subprocess.Popen(command)
    peak = 0
    while process.poll() is None:
        status = Path(f"/proc/{process.pid}/status").read_text()
        found = [line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")]
        peak = max(peak, int(found[0]) * 1024 if found else 0)
        time.sleep(0.05)
    if process.returncode:
        raise SystemExit(process.returncode)
    return peak


def figures(run: Path, seconds: float) -> dict[str, Any]:
    """What the run itself tells."""
    import hallutrace

    info = hallutrace.open(run).info()
    traces = info["traces"]
    return {
        "traces": traces,
        "answer_tokens": info["counts"]["answer_tokens"],
        "traces_a_second": round(traces / seconds, 3),
        "bytes_a_trace": round(info["bytes"] / traces),
        "versions": hallutrace.open(run).records[0].environment,
    }


if __name__ == "__main__":
    main()
