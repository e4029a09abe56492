"""What a user waits for before anything happens, against imports nobody can avoid.

    python benches/startup.py

Least of several whole processes each, in turns; prints one line of JSON.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REPEATS = 5
MAIN = "from hallutrace.commands.app import main; main()"
COMMANDS = {
    "import numpy": ["import numpy"],
    "import hallutrace and its core": ["import hallutrace; hallutrace.sparsify"],
    "--help": [MAIN, "--help"],
    "import torch, transformers": ["import torch, transformers"],
    # What any program that generates with a model of transformers imports in the end.
    "import a model class": ["from transformers import Qwen3ForCausalLM"],
    "first trace": [MAIN, "extract", "--limit", "1"],
    "400 traces": [MAIN, "extract"],
}
# (what, against what, at most)
BUDGETS = [
    ("import hallutrace and its core", "import numpy", 1.5),
    ("--help", "import numpy", 4.0),
    ("first trace", "import torch, transformers", 2.0),
    ("first trace", "import a model class", 2.0),
    ("400 traces", "import torch, transformers", 10.0),
]


def seconds(arguments: list[str]) -> float:
    """Wall time of one process."""
    with tempfile.TemporaryDirectory() as folder:
        out = ["--out", str(Path(folder) / "run")] if "extract" in arguments else []
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", *arguments, *out], check=True, capture_output=True)
        return time.perf_counter() - began


def main() -> None:
    """Times all commands in turns."""
    least = dict.fromkeys(COMMANDS, float("inf"))
    for _ in range(REPEATS):
        for name, arguments in COMMANDS.items():
            least[name] = min(least[name], seconds(arguments))
    ratios = {
        f"{what} / {base}": {"ratio": least[what] / least[base], "at most": most}
        for what, base, most in BUDGETS
    }
    print(json.dumps({"seconds": least, "ratios": ratios}))


if __name__ == "__main__":
    main()
