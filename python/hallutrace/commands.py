"""What the commands do and print; :mod:`hallutrace.cli` only names them."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from hallutrace.errors import InputError
from hallutrace.options import config_of
from hallutrace.progress import Live

_OUT = Console()
_ERR = Console(stderr=True)


def run_extract(preset: str | None, config_file: Path | None, options: dict[str, Any]) -> None:
    """`hallutrace extract`."""
    config = config_of(preset, config_file, options)
    _ERR.print(f"Loading torch, transformers and the model {config.model} ...", highlight=False)
    from hallutrace.extraction import Summary, extract

    _quiet_libraries(is_small=config.model == "demo")
    summary: Summary
    try:
        with Live(_ERR) as reporter:
            summary = extract(config, reporter)
    except KeyboardInterrupt:
        _ERR.print(
            "\nStopped. Committed shards are safe; the one in progress will be done again.\n"
            f"To go on: [bold]{_same_command()}[/bold]",
            highlight=False,
        )
        raise SystemExit(130) from None
    _OUT.print(_summary_text(summary), highlight=False)


def _summary_text(summary: Any) -> str:
    right = "" if summary.right is None else f"{100 * summary.right:.1f}% contain a right answer"
    rate = ""
    if summary.new_traces:
        rate = f"{summary.new_traces / max(summary.seconds, 1e-9):.1f} traces a second"
    merged = f"{summary.merged:,} identical questions merged" if summary.merged else ""
    failures = f"{summary.failures:,} failures"
    if summary.failures:
        failures += f" (see {summary.folder / 'failures.jsonl'})"
    size = summary.bytes / max(summary.traces, 1)
    parts = [failures, merged, right, f"{_bytes(size)} a trace", rate or "nothing left to do"]
    folder = summary.folder
    return "\n".join(
        [
            f"[bold]{summary.traces:,} traces[/bold] in [bold]{folder}[/bold] "
            f"({_bytes(summary.bytes)}), {summary.new_traces:,} of them new",
            "  " + ", ".join(part for part in parts if part),
            "Next:",
            f"  hallutrace inspect {folder}",
            f"  hallutrace inspect {folder} --trace 0",
            f"  python -c \"import hallutrace; print(hallutrace.open('{folder}')[0].layer(0))\"",
        ]
    )


def run_plan(
    preset: str | None,
    config_file: Path | None,
    options: dict[str, Any],
    prompt_tokens: int,
    answer_tokens: int,
    measured: bool,
    as_json: bool,
) -> None:
    """`hallutrace plan`."""
    config = config_of(preset, config_file, options)
    from hallutrace import plan as planning

    _quiet_libraries(is_small=True)
    shape = planning.model_shape(config.model, config.revision)
    questions = config.limit or _questions_known(config)
    batch = config.batch_size if config.batch_size != "auto" else 8
    plans = planning.plan(config, shape, prompt_tokens, answer_tokens, questions)
    needs = planning.memory(config, shape, prompt_tokens, answer_tokens, batch)
    timed = planning.measure(config, batch) if measured else None
    if as_json:
        content: dict[str, Any] = {
            "prompt_tokens": prompt_tokens,
            "answer_tokens": answer_tokens,
            "questions": questions,
            "batch_size": batch,
            "hidden_states": {
                one.hidden_states: {
                    name: getattr(one, name)
                    for name in ("edges", "marginals", "hidden", "trace", "run")
                }
                for one in plans
            },
            "memory": needs,
        }
        if timed:
            content["measured"] = {name: getattr(timed, name) for name in timed.__slots__}
        print(json.dumps(content))
        return
    _OUT.print(
        f"{config.model}: {shape.layers} layers, {shape.heads} heads, width {shape.hidden_size:,}, "
        f"{shape.parameters / 1e6:,.0f}M parameters; "
        f"{prompt_tokens} + {answer_tokens} tokens a trace",
        highlight=False,
    )
    table = Table("--hidden-states", "edges", "marginals", "hidden states", "a trace", "the run")
    for one in plans:
        chosen = " (chosen)" if one.hidden_states == config.hidden_states else ""
        run = _bytes(one.run) if one.run is not None else "-"
        sizes = (one.edges, one.marginals, one.hidden, one.trace)
        table.add_row(one.hidden_states + chosen, *map(_bytes, sizes), run)
    _OUT.print(table)
    pieces = ", ".join(f"{name} {_bytes(size)}" for name, size in needs.items())
    _OUT.print(
        f"Memory at batch size {batch}: about {_bytes(sum(needs.values()))} ({pieces})",
        highlight=False,
    )
    if timed:
        whole = ""
        if questions is not None:
            needed = _duration(timed.seconds / timed.traces * questions)
            whole = f"; {questions:,} questions take about {needed}"
        _OUT.print(
            f"Measured: {timed.traces} traces in {timed.seconds:.1f} s, {timed.prompt:.0f} + "
            f"{timed.answer:.0f} tokens, {_bytes(timed.trace_bytes)} a trace{whole}",
            highlight=False,
        )


def _questions_known(config: Any) -> int | None:
    """Questions of the source where telling needs no network."""
    from hallutrace.extraction import open_source

    if config.questions.startswith("hf:") and config.responses is None:
        return None
    return open_source(config).total


def run_inspect(
    run: Path, trace: str | None, shard: int | None, read_all: bool, as_json: bool
) -> None:
    """`hallutrace inspect`."""
    from hallutrace.inspection import inspect_run
    from hallutrace.store import open_run

    with open_run(run) as store:
        if trace is not None:
            _show_trace(store, trace, as_json)
            return
        found = inspect_run(store, shard, read_all)
    if as_json:
        print(json.dumps(found, ensure_ascii=False))
        return
    _show_run(found)


def _show_run(found: dict[str, Any]) -> None:
    whole = found["run"]
    model, source = whole["identity"]["model"], whole["identity"]["source"]
    _OUT.print(
        f"[bold]{whole['folder']}[/bold]: {whole['traces']:,} traces in {len(found['shards'])} of "
        f"{whole['shards']} shards, {_bytes(whole['bytes'])}\n"
        f"  model {model['name']} ({model['dtype']}, quantization {model['quantization']}), "
        f"questions {source.get('spec', source)}\n"
        f"  prompts of {_range(whole['prompt_tokens'])} tokens, answers of "
        f"{_range(whole['answer_tokens'])}; "
        f"{_percent(whole['right_share'])} contain a right answer; mean logprob "
        f"{_decimal(whole['mean_logprob'])}; ended by {whole['finish_reasons']}",
        highlight=False,
    )
    if note := whole["facts"].get("note"):
        _OUT.print(f"  [dim]{note}[/dim]", highlight=False)
    shards = Table("shard", "traces", "failed", "right", "prompt", "answer", "logprob", "a trace")
    for one in found["shards"]:
        shards.add_row(
            one["name"],
            f"{one['traces']:,}",
            f"{one['failures']:,}",
            _percent(one["right_share"]),
            _range(one["prompt_tokens"]),
            _range(one["answer_tokens"]),
            _decimal(one["mean_logprob"]),
            _bytes(one["bytes_per_trace"] or 0),
        )
    _OUT.print(shards)
    if len(found["shards"]) > 1:
        between = Table("between shards", "least", "greatest", "standard deviation")
        for name, spread in found["between_shards"].items():
            numbers = (spread[key] for key in ("least", "greatest", "deviation"))
            between.add_row(name.replace("_", " "), *(f"{number:,.4g}" for number in numbers))
        _OUT.print(between)
    layers = Table("layer", "attention retained", "entropy (nats)")
    captured = whole["facts"]["captured_layers"]
    retained, entropy = whole.get("retained_by_layer", []), whole.get("entropy_by_layer", [])
    for layer, kept, nats in zip(captured, retained, entropy, strict=False):
        layers.add_row(str(layer), _percent(kept), _decimal(nats))
    _OUT.print(layers)
    _OUT.print(
        f"Attention of the answer rows, read from {whole['attention_traces']:,} traces.",
        highlight=False,
    )


def _show_trace(store: Any, which: str, as_json: bool) -> None:
    """One trace, readable, with its strongest edges by layer."""
    from hallutrace.inspection import strongest_edges

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
        print(json.dumps(content, ensure_ascii=False))
        return
    words = _words(store, trace)
    lines = [
        f"[bold]{_plain(trace.id)}[/bold], sample {trace.sample}: {trace.prompt_length} + "
        f"{len(trace.answer_tokens)} tokens, ended by {trace.finish_reason}",
        f"[bold]Prompt[/bold]      {_plain(trace.prompt)}",
        f"[bold]Answer[/bold]      {_plain(trace.answer)}",
        f"[bold]References[/bold]  {_plain(', '.join(trace.references) or 'none')}",
    ]
    said = zip(words[trace.prompt_length :], trace.logprob, trace.token_entropy, strict=True)
    lines += ["[bold]Answer tokens[/bold] (logprob, entropy)"]
    lines += [f"  {_plain(word):>14}  {logprob:7.3f}  {nats:6.3f}" for word, logprob, nats in said]
    lines += ["[bold]Strongest edges[/bold] of the answer rows (key -> query weight)"]
    for layer, edges in layers.items():
        shown = [
            f"{_plain(words[key])}[dim]@{key}[/dim] -> {_plain(words[query])}[dim]@{query}[/dim] "
            f"{weight:.2f}"
            for key, query, weight in edges
        ]
        lines.append(f"  layer {layer:>2}  " + ", ".join(shown))
    _OUT.print("\n".join(lines), highlight=False, soft_wrap=True)


def run_verify(run: Path, fast: bool, as_json: bool) -> None:
    """`hallutrace verify`."""
    from rich.progress import track

    from hallutrace.verification import verify_run

    findings = verify_run(run, fast)
    if _ERR.is_terminal:
        total = len(list((run / "shards").glob("*.json")))
        findings = iter(track(findings, "verifying", total, console=_ERR, transient=True))
    found = list(findings)
    damaged = [finding for finding in found if finding.damage]
    if as_json:
        content = [{"shard": one.name, "traces": one.traces, "damage": one.damage} for one in found]
        print(json.dumps(content, ensure_ascii=False))
    else:
        for finding in damaged:
            _OUT.print(f"[bold]{finding.name}[/bold]: {_plain(finding.damage or '')}")
        traces = sum(finding.traces for finding in found if not finding.damage)
        checked = "headers and sizes" if fast else "every byte"
        _OUT.print(
            f"{run}: {len(found) - len(damaged)} shards with {traces:,} traces are whole "
            f"({checked} checked), {len(damaged)} are damaged",
            highlight=False,
        )
    if damaged:
        raise SystemExit(1)


def run_merge(runs: list[Path], out: Path, forced: list[str]) -> None:
    """`hallutrace merge`."""
    from hallutrace.rework import merge

    _OUT.print(f"{merge(runs, out, force_differing=forced)}", highlight=False)


def run_subset(
    run: Path,
    out: Path,
    ids: str | None,
    indices: str | None,
    label: str | None,
    where: str | None,
    sample: int | None,
    seed: int,
) -> None:
    """`hallutrace subset`."""
    from hallutrace.rework import subset

    part = subset(
        run,
        out,
        ids=_ids(ids),
        indices=_indices(indices),
        label=label,
        where=_condition(where),
        sample=sample,
        seed=seed,
    )
    _OUT.print(f"{part}", highlight=False)


def _ids(text: str | None) -> list[str] | None:
    if text is None:
        return None
    if not text.startswith("@"):
        return text.split(",")
    try:
        return Path(text[1:]).read_text(encoding="utf-8").split("\n")[:-1]
    except OSError as error:
        raise InputError(
            f"Expected a file with one id a line, got {error.strerror} at {text[1:]} - check --ids"
        ) from None


def _indices(text: str | None) -> list[int] | None:
    """``3,7,100:200`` as numbers."""
    if text is None:
        return None
    chosen: list[int] = []
    for part in text.split(","):
        begin, colon, end = part.partition(":")
        if not begin.isdecimal() or (colon and not end.isdecimal()):
            raise InputError(
                f"Expected numbers such as 3,7,100:200, got {text!r} - change --indices"
            )
        chosen.extend(range(int(begin), int(end) if colon else int(begin) + 1))
    return chosen


def _condition(text: str | None) -> Callable[[Any], bool] | None:
    """An expression over the names in a trace's meta; it sees those and ``len`` alone."""
    if text is None:
        return None
    try:
        code = compile(text, "--where", "eval")
    except SyntaxError as error:
        raise InputError(
            f"Expected a Python expression, got {text!r} ({error.msg}) - change --where"
        ) from None

    def holds(trace: Any) -> bool:
        try:
            return bool(eval(code, {"__builtins__": {"len": len}}, trace.meta))
        except Exception as error:
            raise InputError(
                f"Expected an expression over {', '.join(trace.meta)}, got {text!r} ({error}) - "
                "change --where"
            ) from None

    return holds


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
    file = folder / "tokenizer.json"
    ids = trace.tokens.tolist()
    if not file.is_file():
        return [f"#{id_}" for id_ in ids]
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(file))
    return [tokenizer.decode([id_], skip_special_tokens=False) for id_ in ids]


def _quiet_libraries(is_small: bool) -> None:
    """Keeps transformers from talking over the progress bar."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    if is_small or not sys.stderr.isatty():
        logging.disable_progress_bar()


def _same_command() -> str:
    return " ".join(["hallutrace", *sys.argv[1:]])


def _plain(text: str) -> str:
    """Text that rich does not read as markup, whitespace made visible."""
    return text.replace("[", r"\[").replace("\n", "⏎")


def _bytes(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 3600:.1f} h" if seconds >= 7200 else f"{seconds / 60:.0f} min"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f}%"


def _decimal(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _range(spread: dict[str, float] | None) -> str:
    if spread is None:
        return "-"
    return f"{spread['median']:.0f} ({spread['least']:.0f}-{spread['greatest']:.0f})"
