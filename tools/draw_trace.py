"""Draws docs/images/trace.svg: the attention of one answer of the small model, from its trace.

Run it as `make picture`.
"""

from __future__ import annotations

import math
import tempfile
from html import escape
from pathlib import Path

import hallutrace
from hallutrace.demo import MODEL_FOLDER

PICTURE = Path(__file__).parents[1] / "docs" / "images" / "trace.svg"
LAYER = 2
TOP_K = 3
CHARACTER = 7.9  # width of a character in pixels
GAP = 7.0  # between tokens
BASELINE = 150.0
ANSWER, PROMPT = "#b3541e", "#64748b"


def main() -> None:
    """Makes a run of one wrong answer and draws it."""
    with tempfile.TemporaryDirectory() as folder:
        run = hallutrace.open(
            hallutrace.extract(
                hallutrace.ExtractConfig(questions="demo:40", out=Path(folder) / "run")
            ).folder
        )
        wrong = next(trace for trace in run if not is_right(trace) and trace.logprob.size > 3)
        PICTURE.parent.mkdir(parents=True, exist_ok=True)
        PICTURE.write_text(drawn(wrong), encoding="utf-8")
    print(f"{PICTURE} ({PICTURE.stat().st_size:,} bytes): {wrong.question} {wrong.answer}")


def is_right(trace: hallutrace.Trace) -> bool:
    """Whether the answer contains a reference."""
    return any(reference in trace.answer for reference in trace.references)


def drawn(trace: hallutrace.Trace) -> str:
    """A trace as SVG: tokens in a row, edges of one layer as arcs, probabilities as bars."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(MODEL_FOLDER)
    tokens = [tokenizer.decode([token]).replace("\n", "⏎").strip() for token in trace.tokens]
    begin = len(tokens) - trace.logprob.size
    centers, at = [], 12.0
    for token in tokens:
        width = max(len(token), 1) * CHARACTER
        centers.append(at + width / 2)
        at += width + GAP
    edges = trace.layer(LAYER)
    parts = [
        arc(centers[key], centers[query], float(weight), query >= begin)
        for key, query, weight in strongest(edges)
    ]
    for index, (token, center) in enumerate(zip(tokens, centers, strict=True)):
        color = ANSWER if index >= begin else PROMPT
        parts.append(
            f'<text x="{center:.0f}" y="{BASELINE + 18:.0f}" fill="{color}">{escape(token)}</text>'
        )
    for center, logprob in zip(centers[begin:], trace.logprob, strict=True):
        height = 36 * math.exp(float(logprob))
        parts.append(
            f'<rect x="{center - 6:.0f}" y="{BASELINE + 68 - height:.0f}" width="12" '
            f'height="{height:.0f}" fill="{ANSWER}"/>'
        )
    captions = (
        f"Layer {LAYER} of the small model: the {TOP_K} largest attention weights of each token, "
        "from key to query",
        "bars: probability of each answer token",
    )
    for number, caption in enumerate(captions):
        parts.append(
            f'<text x="{at / 2:.0f}" y="{BASELINE + 90 + 16 * number:.0f}" font-size="11" '
            f'fill="{PROMPT}">{escape(caption)}</text>'
        )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {at + 6:.0f} {BASELINE + 114:.0f}" '
        'role="img" font-family="ui-monospace, Menlo, Consolas, monospace" font-size="13" '
        f'text-anchor="middle"><title>{escape("; ".join(captions))}</title>\n'
        + "\n".join(parts)
        + "\n</svg>\n"
    )


def strongest(edges: hallutrace.EdgeList) -> list[tuple[int, int, float]]:
    """Key, query and weight of the largest edges of each query, but for those to itself."""
    rows: dict[int, list[tuple[float, int]]] = {}
    for key, query, weight in zip(edges.keys, edges.queries, edges.weights, strict=True):
        if key != query:
            rows.setdefault(int(query), []).append((float(weight), int(key)))
    return [
        (key, query, weight)
        for query, row in rows.items()
        for weight, key in sorted(row, reverse=True)[:TOP_K]
    ]


def arc(start: float, end: float, weight: float, is_answer: bool) -> str:
    """An edge as an arc above the tokens; the stronger, the darker."""
    height = min(180.0, 14 + 0.42 * (end - start))
    color = ANSWER if is_answer else PROMPT
    return (
        f'<path d="M{start:.0f} {BASELINE:.0f}C{start:.0f} {BASELINE - height:.0f} {end:.0f} '
        f'{BASELINE - height:.0f} {end:.0f} {BASELINE:.0f}" fill="none" stroke="{color}" '
        f'stroke-width="{0.6 + 2.4 * weight:.1f}" opacity="{min(1.0, 0.15 + weight):.2f}"/>'
    )


if __name__ == "__main__":
    main()
