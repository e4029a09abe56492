"""The command line: `hallutrace COMMAND --help` teaches each command."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from hallutrace.errors import HallutraceError
from hallutrace.options import config_options

app = typer.Typer(
    name="hallutrace",
    help="Look inside a causal language model while it answers: sparse attention graphs, exact "
    "marginals, hidden states and token probabilities of every answer, kept as traces.\n\n"
    "Begin with `hallutrace extract`: without options the small model in the package answers 400 "
    "of its own questions, with no network and no GPU.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)

Preset = Annotated[
    Optional[str],
    typer.Option(help="named settings of a whole experiment: triviaqa-qwen3-4b", metavar="NAME"),
]
ConfigFile = Annotated[
    Optional[Path],
    typer.Option(
        "--config", help="YAML file with options by name; options given here win", metavar="FILE"
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="for machines: JSON on standard output")]
RunFolder = Annotated[
    Path, typer.Argument(help="folder that `hallutrace extract` wrote", metavar="RUN")
]


@app.command()
@config_options
def extract(preset: Preset = None, config: ConfigFile = None, **options: Any) -> None:
    """Ask a model questions and keep a trace of each answer.

    Without options: the small model in the package on 400 of its own questions, into runs/demo.
    The same command again goes on where it stopped; --limit may grow; any other difference is
    refused.
    """
    from hallutrace.commands import run_extract

    run_extract(preset, config, options)


@app.command()
@config_options
def plan(
    preset: Preset = None,
    config: ConfigFile = None,
    prompt_tokens: Annotated[int, typer.Option(help="tokens of a prompt", min=1)] = 40,
    answer_tokens: Annotated[int, typer.Option(help="tokens of an answer", min=1)] = 12,
    measure: Annotated[
        bool, typer.Option("--measure", help="time one batch (loads the model)")
    ] = False,
    as_json: AsJson = False,
    **options: Any,
) -> None:
    """Tell the bytes and the memory of a run before it begins, and its time with --measure.

    Needs the model's configuration alone: no weights, and for presets no network.
    """
    from hallutrace.commands import run_plan

    run_plan(preset, config, options, prompt_tokens, answer_tokens, measure, as_json)


@app.command()
def inspect(
    run: RunFolder,
    trace: Annotated[
        Optional[str],
        typer.Option(help="read one trace: a question id, ID/SAMPLE, or a number", metavar="ID"),
    ] = None,
    shard: Annotated[
        Optional[int],
        typer.Option(help="only this shard", metavar="N", min=0),
    ] = None,
    read_all: Annotated[
        bool, typer.Option("--all", help="read the attention of every trace, not of a sample")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show what is in a run: lengths, answers, sizes, attention retained, entropy by layer."""
    from hallutrace.commands import run_inspect

    run_inspect(run, trace, shard, read_all, as_json)


def main() -> None:
    """Runs a command; mistakes end with a message and exit code 2, Ctrl-C with 130."""
    try:
        app()
    except HallutraceError as error:
        print(f"Error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except BrokenPipeError:
        raise SystemExit(141) from None
