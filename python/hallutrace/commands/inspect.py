"""`hallutrace inspect`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

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
    shards = Table("shard", "traces", "failed", "right", "prompt", "answer", "logprob", "a trace")
    for one in found["shards"]:
        shards.add_row(
            one["name"],
            f"{one['traces']:,}",
            f"{one['failures']:,}",
            percent(one["right_share"]),
            spread(one["prompt_tokens"]),
            spread(one["answer_tokens"]),
            decimal(one["mean_logprob"]),
            bytes_text(one["bytes_per_trace"] or 0),
        )
    OUT.print(shards)
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
            "strongest_edges": {
                str(layer): [
                    {"key": key, "query": query, "weight": weight} for key, query, weight in edges
                ]
                for layer, edges in layers.items()
            },
        }
        print_json(content)
        return
    _print_trace(trace, _words(store, trace), layers)


def _print_trace(
    trace: Any, words: list[str], layers: dict[int, list[tuple[int, int, float]]]
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
    OUT.print(styled(("Answer tokens", "bold"), " (logprob, entropy)"))
    said = zip(words[trace.prompt_length :], trace.logprob, trace.token_entropy, strict=True)
    for word, logprob, nats in said:
        OUT.print(f"  {right_aligned(word, 14)}  {logprob:7.3f}  {nats:6.3f}")
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


def _words(store: Any, trace: Any) -> list[str]:
    """Tokens as text where the tokenizer can be had without a network, else as ids."""
    from hallutrace.demo import MODEL_FOLDER

    name = store.manifest.identity["model"]["name"]
    folder = MODEL_FOLDER if name == "demo" else Path(name)
    file: Any = folder / "tokenizer.json"
    ids = trace.tokens.tolist()
    if not file.is_file():
        from huggingface_hub import try_to_load_from_cache

        is_repo = name.count("/") <= 1 and not Path(name).is_absolute()
        file = try_to_load_from_cache(name, "tokenizer.json") if is_repo else None
    if not isinstance(file, (str, Path)):
        return [f"#{id_}" for id_ in ids]
    from tokenizers import Tokenizer

    from hallutrace.model.token_text import token_texts

    return token_texts(Tokenizer.from_file(str(file)), ids)
