"""`hallutrace inspect`."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from hallutrace.commands.common_options import AsJson, RunFolder
from hallutrace.commands.console import (
    OUT,
    bytes_text,
    decimal,
    percent,
    plain,
    print_json,
    right_aligned,
    spread,
    styled,
)
from hallutrace.errors import InputError
from hallutrace.viewer.token_texts import TextsOf, ids_as_text, texts_of

if TYPE_CHECKING:
    from hallutrace.store.trace import Trace

SHOWN_ALTERNATIVES = 3


def run_inspect(
    run: RunFolder,
    trace: Annotated[
        str | None,
        typer.Option(
            help="Show one trace: the id of its question, ID/SAMPLE, or its number from 0.",
            metavar="ID",
        ),
    ] = None,
    shard: Annotated[
        int | None,
        typer.Option(help="Show only this shard, a number from 0.", metavar="N", min=0),
    ] = None,
    read_all: Annotated[
        bool,
        typer.Option(
            "--all", help="Read the attention of every trace (default: of a sample of them)."
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show what is in a run: lengths, answers, sizes, attention retained, entropy by layer."""
    from hallutrace.store.inspect import inspect_run
    from hallutrace.store.reader import open_run

    with open_run(run) as store:
        if trace is not None:
            _show_trace(store, trace, as_json)
            return
        found = inspect_run(store, shard, read_all)
    if as_json:
        print_json(found)
        return
    _show_run(found)


def _show_run(found: dict[str, Any]) -> None:
    whole = found["run"]
    model, source = whole["identity"]["model"], whole["identity"]["source"]
    OUT.print(
        styled(
            (plain(whole["folder"]), "bold"),
            f": {whole['traces']:,} traces in {len(found['shards'])} of "
            f"{whole['shards']} shards, {bytes_text(whole['bytes'])}\n"
            f"  model {plain(model['name'])} ({model['dtype']}, quantization "
            f"{model['quantization']}), questions {plain(str(source.get('spec', source)))}\n"
            f"  prompts of {spread(whole['prompt_tokens'])} tokens, answers of "
            f"{spread(whole['answer_tokens'])}; "
            f"{percent(whole['right_share'])} contain a right answer; mean logprob "
            f"{decimal(whole['mean_logprob'])}; ended by {whole['finish_reasons']}",
        )
    )
    if note := whole["facts"].get("note"):
        OUT.print(styled(("  " + plain(note), "dim")))
    OUT.print(_shard_table(found["shards"]))
    if len(found["shards"]) > 1:
        between = Table("between shards", "least", "greatest", "standard deviation")
        for name, shards_differ in found["between_shards"].items():
            numbers = (shards_differ[key] for key in ("least", "greatest", "deviation"))
            between.add_row(name.replace("_", " "), *(f"{number:,.4g}" for number in numbers))
        OUT.print(between)
    layers = Table("layer", "attention retained", "entropy (nats)")
    captured = whole["facts"]["captured_layers"]
    retained, entropy = whole.get("retained_by_layer", []), whole.get("entropy_by_layer", [])
    for layer, kept, nats in zip(captured, retained, entropy, strict=False):
        layers.add_row(str(layer), percent(kept), decimal(nats))
    OUT.print(layers)
    OUT.print(f"Attention of the answer rows, read from {whole['attention_traces']:,} traces.")


def _shard_table(shards: list[dict[str, Any]]) -> Table:
    table = Table("shard", "traces", "failed", "right", "prompt", "answer", "logprob", "a trace")
    for one in shards:
        table.add_row(
            one["name"],
            f"{one['traces']:,}",
            f"{one['failures']:,}",
            percent(one["right_share"]),
            spread(one["prompt_tokens"]),
            spread(one["answer_tokens"]),
            decimal(one["mean_logprob"]),
            bytes_text(one["bytes_per_trace"] or 0),
        )
    return table


def _show_trace(store: Any, which: str, as_json: bool) -> None:
    """One trace, readable, with its strongest edges by layer."""
    from hallutrace.store.inspect import strongest_edges

    trace = _find(store, which)
    layers = {layer: strongest_edges(trace, layer, 5) for layer in trace.layers}
    if as_json:
        content = {
            **trace.meta,
            "tokens": trace.tokens.tolist(),
            "logprob": trace.logprob.tolist(),
            "token_entropy": trace.token_entropy.tolist(),
            "logsumexp": trace.logsumexp.tolist(),
            "strongest_edges": {
                str(layer): [
                    {"key": key, "query": query, "weight": weight} for key, query, weight in edges
                ]
                for layer, edges in layers.items()
            },
        }
        if store.manifest.identity.get("alternatives"):
            content["alternatives"] = {
                "token": trace.alternatives.tokens.tolist(),
                "logprob": trace.alternatives.logprobs.tolist(),
            }
        print_json(content)
        return
    words_of = texts_of(store.manifest.identity["model"]["name"]) or ids_as_text
    instead = [""] * len(trace.answer_tokens)
    if store.manifest.identity.get("alternatives"):
        instead = _alternatives(trace, words_of)
    _print_trace(trace, words_of(trace.tokens.tolist()), instead, layers)


def _alternatives(trace: Trace, words_of: TextsOf) -> list[str]:
    """The likeliest other tokens in the place of each answer token, with their probabilities."""
    kept, lines = trace.alternatives, []
    for said, tokens, logprobs in zip(trace.answer_tokens, kept.tokens, kept.logprobs, strict=True):
        others = [
            f"{words_of([token])[0]} {math.exp(logprob):.2f}"
            for token, logprob in zip(tokens.tolist(), logprobs.tolist(), strict=True)
            if token != said
        ]
        lines.append(", ".join(others[:SHOWN_ALTERNATIVES]))
    return lines


def _print_trace(
    trace: Any,
    words: list[str],
    instead: list[str],
    layers: dict[int, list[tuple[int, int, float]]],
) -> None:
    heads = {
        "Prompt": trace.prompt,
        "Answer": trace.answer,
        "References": ", ".join(trace.references) or "none",
    }
    OUT.print(
        styled(
            (plain(trace.id), "bold"),
            f", sample {trace.sample}: {trace.prompt_length} + {len(trace.answer_tokens)} tokens, "
            f"ended by {trace.finish_reason}",
        )
    )
    for head, text in heads.items():
        OUT.print(styled((f"{head:<12}", "bold"), plain(text)))
    told = " (logprob, entropy, probability of others)" if any(instead) else " (logprob, entropy)"
    OUT.print(styled(("Answer tokens", "bold"), told))
    answer = words[trace.prompt_length :]
    for word, logprob, nats, others in zip(
        answer, trace.logprob, trace.token_entropy, instead, strict=True
    ):
        line = f"  {right_aligned(word, 14)}  {logprob:7.3f}  {nats:6.3f}  {plain(others)}"
        OUT.print(line.rstrip())
    OUT.print(styled(("Strongest edges", "bold"), " of the answer rows (key -> query weight)"))
    for layer, edges in layers.items():
        parts: list[str | tuple[str, str]] = [f"  layer {layer:>2}  "]
        for at, (key, query, weight) in enumerate(edges):
            parts += [", " if at else "", plain(words[key]), (f"@{key}", "dim"), " -> "]
            parts += [plain(words[query]), (f"@{query}", "dim"), f" {weight:.2f}"]
        OUT.print(styled(*parts))


def _find(store: Any, which: str) -> Any:
    """A trace by question id, ID/SAMPLE, or number."""
    id_, _, sample = which.rpartition("/")
    for key in (which, (id_, int(sample)) if id_ and sample.isdigit() else None):
        if key is not None:
            try:
                return store[key]
            except KeyError:
                continue
    if which.lstrip("-").isdigit() and -len(store) <= int(which) < len(store):
        return store[int(which)]
    raise InputError(
        f"Expected the id or the number of one of {len(store):,} traces, got {which!r} - "
        f"the first is {store[0].id!r}"
        if len(store)
        else "Expected a run with traces, got none"
    )
