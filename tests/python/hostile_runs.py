"""A run whose every text and name could be read as more than text."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np

from detect_runs import Made, causal_attention, write_run
from hallutrace import ExtractConfig, extract
from hostile_texts import PIECES, hostile_text

SCRIPTS = (
    "</script><script>window.harmed = 1</script>",
    "<img src=x onerror='window.harmed = 1'>",
    "<svg onload=window.harmed=1>",
    "<!--<script>",
    "]]>",
    "javascript:window.harmed=1",
    "{{constructor.constructor('window.harmed=1')()}}",
    "\u202egnp.exe",
    "\x1b[2J\x1b]0;harmed\x07",
    "=HYPERLINK('http://127.0.0.1:9/')",
    "#view=errors&label=%00",
    "../../../../etc/passwd",
)


def hostile_run(folder: Path, count: int = 30) -> Path:
    """Given answers, replayed by the small model: questions, answers, ids, groups, references."""
    rng = random.Random(7)
    texts = [*SCRIPTS, *(one for one in PIECES if one.strip())]
    rows = []
    for number in range(count):
        text = texts[number % len(texts)].encode("utf-8", "replace").decode()
        rows.append(
            {
                "id": f"{text[:60]} {number}",
                "question": f"{text} who?",
                "answers": [text, hostile_text(rng).encode("utf-8", "replace").decode()[:300]],
                "response": f" {text[:40]}",
                "group": text,
            }
        )
    file = folder.with_suffix(".jsonl")
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    extract(ExtractConfig(model="demo", responses=file, out=folder, device="cpu"))
    lines = [
        json.dumps({"id": row["id"], "sample": 0, "label": number % 2, "score": None}) + "\n"
        for number, row in enumerate(rows)
    ]
    (folder / "labels").mkdir(exist_ok=True)
    (folder / "labels" / "contains.jsonl").write_text("".join(lines), "utf-8")
    return folder


def megabyte_run(folder: Path) -> Path:
    """A run of eight made-up traces, of which one has a question of one word of a megabyte."""
    rng = np.random.default_rng(0)
    made = [
        Made(causal_attention((2, 2, 12), rng), prompt=8, label=number % 2, question="who?")
        for number in range(8)
    ]
    made[3].question = "w" * (1 << 20)
    return write_run(folder, made)
