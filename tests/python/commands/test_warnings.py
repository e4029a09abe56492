"""With every warning an error, no command warns or prints a line that is not for the user."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

COMMANDS = """
label runs/demo-60 --by contains
label runs/demo-60 --by f1
label runs/demo-60 --agreement
inspect runs/demo-60
inspect runs/demo-60 --trace 0
verify runs/demo-60
repair runs/demo-60
plan --measure
evaluate runs/demo-60 --label contains --quick --folds 2 --jobs 1
report runs/demo-60
project runs/demo-60 --method pca
figure layers-heads runs/demo-60
train runs/demo-60 --label contains --detector graph-vae --out detectors/vae --epochs 1
score runs/demo-60 --detector detectors/vae --out scores.csv
subset runs/demo-60 --indices 0:10 --out runs/ten
"""

# One process for all of them: importing torch takes longer than the commands.
ALL_COMMANDS = """
import sys
from hallutrace.commands.app import app
for line in sys.stdin:
    if line.strip():
        app(line.split(), standalone_mode=False)
"""


def python(folder: Path, *arguments: str, given: str = "") -> subprocess.CompletedProcess[str]:
    """Runs Python in a folder with every warning an error."""
    command = [sys.executable, "-W", "error", *arguments]
    return subprocess.run(
        command, cwd=folder, input=given, capture_output=True, text=True, check=False
    )


def test_commands_run_with_every_warning_an_error(tmp_path: Path) -> None:
    others = python(tmp_path, "-c", "import torch, transformers, typer")
    if others.returncode:
        pytest.skip(f"a package warns when it is imported: {others.stderr.splitlines()[-1]}")
    extracted = python(tmp_path, "-m", "hallutrace", "extract", "--questions", "demo:60")
    assert extracted.returncode == 0, extracted.stderr
    assert extracted.stderr == "Loading torch, transformers and the model demo ...\n"
    others = python(tmp_path, "-c", ALL_COMMANDS, given=COMMANDS)
    assert others.returncode == 0, others.stderr
    assert not re.search(r"[A-Z]\w*Warning", others.stderr), others.stderr
