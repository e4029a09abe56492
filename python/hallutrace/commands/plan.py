"""`hallutrace plan`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from hallutrace.commands.common_options import AsJson, Plugins
from hallutrace.commands.config_options import ConfigFile, Preset, config_of, config_options
from hallutrace.commands.console import OUT, bytes_text, duration, plain, print_json

if TYPE_CHECKING:
    from hallutrace.config import ExtractConfig
    from hallutrace.extraction.estimate import Measured, RunSize
    from hallutrace.questions import QuestionSource


@config_options
def run_plan(
    preset: Preset = None,
    config_file: ConfigFile = None,
    prompt_tokens: Annotated[
        int, typer.Option(help="Tokens of a prompt to assume.", metavar="N", min=1)
    ] = 40,
    answer_tokens: Annotated[
        int, typer.Option(help="Tokens of an answer to assume.", metavar="N", min=1)
    ] = 12,
    measure: Annotated[
        bool,
        typer.Option("--measure", help="Load the model, time one batch, and estimate the time."),
    ] = False,
    plugins: Plugins = None,
    as_json: AsJson = False,
    **options: Any,
) -> None:
    """Estimate disk and memory of a run before it begins, and its time with --measure.

    Needs only the model's configuration: no weights, and for presets no network.
    """
    config = config_of(preset, config_file, options)
    from hallutrace.commands.library_warnings import quiet_libraries
    from hallutrace.extraction import estimate
    from hallutrace.model.files import ModelName

    quiet_libraries(is_small=True)
    shape = estimate.model_shape(ModelName.of(config))
    source = _source_at_hand(config)
    questions = config.limit or (source.total if source else None)
    source_lines = source.describe() if source else []
    batch = config.batch_size if config.batch_size != "auto" else 8
    sizes = estimate.plan(config, shape, prompt_tokens, answer_tokens, questions)
    needs = estimate.memory(config, shape, prompt_tokens, answer_tokens, batch)
    timed = estimate.measure(config, batch) if measure else None
    if as_json:
        about = {
            "prompt_tokens": prompt_tokens,
            "answer_tokens": answer_tokens,
            "questions": questions,
            "source": source_lines,
            "batch_size": batch,
        }
        print_json({**about, **_estimates(sizes, needs, timed)})
        return
    for line in source_lines:
        OUT.print(line)
    OUT.print(
        f"{plain(config.model)}: {shape.layers} layers, {shape.heads} heads, "
        f"width {shape.hidden_size:,}, {shape.parameters / 1e6:,.0f}M parameters; "
        f"{prompt_tokens} + {answer_tokens} tokens a trace"
    )
    OUT.print(_size_table(sizes, config.hidden_states))
    pieces = ", ".join(f"{name} {bytes_text(size)}" for name, size in needs.items())
    OUT.print(f"Memory at batch size {batch}: about {bytes_text(sum(needs.values()))} ({pieces})")
    if timed:
        OUT.print(_measured_text(timed, questions))


def _estimates(
    sizes: list[RunSize], needs: dict[str, int], timed: Measured | None
) -> dict[str, Any]:
    """What was estimated, and measured if it was, JSON-able."""
    parts = ("edges", "marginals", "tokens", "hidden", "trace", "run")
    found: dict[str, Any] = {
        "hidden_states": {
            one.hidden_states: {name: getattr(one, name) for name in parts} for one in sizes
        },
        "memory": needs,
    }
    if timed:
        found["measured"] = {name: getattr(timed, name) for name in timed.__slots__}
    return found


def _size_table(sizes: list[RunSize], chosen: str) -> Table:
    columns = ("edges", "marginals", "tokens", "hidden states", "a trace", "the run")
    table = Table("--hidden-states", *columns)
    for one in sizes:
        name = one.hidden_states + (" (chosen)" if one.hidden_states == chosen else "")
        run = "-" if one.run is None else bytes_text(one.run)
        of_trace = (one.edges, one.marginals, one.tokens, one.hidden, one.trace)
        table.add_row(name, *map(bytes_text, of_trace), run)
    return table


def _measured_text(timed: Measured, questions: int | None) -> str:
    whole = ""
    if questions is not None:
        whole = f"; {questions:,} questions take about {duration(timed.seconds_of(questions))}"
    return (
        f"Measured: {timed.traces} traces of {timed.questions} questions in "
        f"{timed.seconds:.1f} s, {timed.prompt:.0f} + {timed.answer:.0f} tokens, "
        f"{bytes_text(timed.trace_bytes)} a trace{whole}"
    )


def _source_at_hand(config: ExtractConfig) -> QuestionSource | None:
    """The source of the questions, where opening it needs no network."""
    from hallutrace.extraction.pipeline import open_source

    if config.questions.startswith("hf:") and config.responses is None:
        return None
    return open_source(config)
