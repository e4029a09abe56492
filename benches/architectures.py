"""Every causal architecture of transformers, as a tiny random model: exact or refused?

    python benches/architectures.py [--out benches/record/architectures.md] [TYPE ...]

Each is built twice, with small and with sharp weights, and checked as `hallutrace extract` checks a
model. Where that passes, a batch of texts of different lengths is replayed in blocks of 7 rows, and
every attention weight, log-probability and hidden state is compared with what the model itself
gives for each text alone. The recipe is in
`tests/python/small_architectures.py`.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests" / "python"))

COLUMNS = (
    "model type",
    "verdict",
    "attention layers",
    "attention, calm / sharp",
    "log-probability, calm / sharp",
    "hidden states, calm / sharp",
    "reason",
)


def main() -> None:
    """Writes the table; exits with 1 where an architecture is traced wrongly."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("types", nargs="*", help="model types; all by default")
    parser.add_argument("--out", type=Path, default=None)
    arguments = parser.parse_args()

    import torch
    import transformers

    from every_architecture import Verdict, examine
    from small_architectures import EVERY_ROW

    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity_error()
    torch.set_num_threads(1)
    verdicts: list[Verdict] = []
    for kind in arguments.types or EVERY_ROW:
        verdicts.append(examine(kind))
        print(f"{kind}: {verdicts[-1].verdict} {verdicts[-1].reason}", flush=True)
    counts = Counter(verdict.verdict for verdict in verdicts)
    said = ", ".join(
        f"{counts[name]} {name}" for name in ("exact", "refused", "not built", "wrong")
    )
    text = "\n".join(
        [
            "# Causal architectures of transformers, as tiny random models",
            "",
            f"`python benches/architectures.py`, transformers {transformers.__version__}, "
            f"torch {torch.__version__.partition('+')[0]}, on a CPU in float32: {said}.",
            "",
            "Largest differences to what the model itself gives for each text alone. Texts are "
            "longer than all windows, chunks and index sizes. Calm weights: at most 1e-6 of "
            "attention, sharp ones: 3e-5. A type with `is_decoder` is an encoder told to be "
            "a causal model.",
            "",
            "| " + " | ".join(COLUMNS) + " |",
            "|---" * len(COLUMNS) + "|",
            *[row(verdict) for verdict in verdicts],
            "",
        ]
    )
    if arguments.out:
        arguments.out.write_text(text, encoding="utf-8")
    print(said)
    sys.exit(1 if counts["wrong"] else 0)


def row(verdict: object) -> str:
    """A line of the table."""
    from every_architecture import Verdict

    assert isinstance(verdict, Verdict)
    figures = [
        " / ".join(f"{value:.0e}" for value in values)
        for values in (verdict.attention, verdict.logprob, verdict.hidden)
    ]
    reason = " ".join(verdict.reason.split()).replace("|", "\\|")
    cells = (verdict.kind, verdict.verdict, verdict.layers, *figures, reason)
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    main()
