"""The command line: `hallutrace COMMAND --help` explains each command, with examples."""

from __future__ import annotations

import os
import sys
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from hallutrace.commands import (
    ask,
    detectors,
    evaluate,
    explore,
    extract,
    figure,
    inspect,
    label,
    merge,
    plan,
    project,
    repair,
    report,
    score,
    subset,
    train,
    verify,
)
from hallutrace.commands.closed_pipes import PIPE_CLOSED, end_writing
from hallutrace.commands.common_options import add_to
from hallutrace.commands.console import OUT, is_unicode, prepare_streams
from hallutrace.commands.exit_codes import report_error
from hallutrace.option_names import naming_options

COMPLETION = "_HALLUTRACE_COMPLETE"  # the variable by which a shell asks for completions


class _Commands(TyperGroup):
    """Names options in messages, and ends with 141 where the reader of the output stops early."""

    def invoke(self, ctx: Any) -> Any:
        try:
            try:
                with naming_options():
                    return super().invoke(ctx)
            finally:
                sys.stdout.flush()  # here, not when the interpreter ends
        except BrokenPipeError:
            end_writing()
            raise SystemExit(PIPE_CLOSED) from None


app = typer.Typer(
    cls=_Commands,
    name="hallutrace",
    help="Look inside a causal language model while it answers: sparse attention graphs, exact "
    "marginals, hidden states and token probabilities of every answer, kept as traces.\n\n"
    "Begin with `hallutrace extract`: without options, the small model in the package answers 400 "
    "of its own questions, with no network and no GPU.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)


def _print_version(is_asked: bool) -> None:
    if is_asked:
        import hallutrace

        OUT.print(f"hallutrace {hallutrace.__version__}")
        raise typer.Exit


Version = Annotated[
    bool,
    typer.Option(
        "--version", help="Print the version and exit.", callback=_print_version, is_eager=True
    ),
]


@app.callback()
def options_of_no_command(version: Version = False) -> None:
    """Takes the options that stand before a command."""


add_to(
    app,
    "extract",
    extract.run_extract,
    "hallutrace extract",
    "hallutrace extract --model Qwen/Qwen3-4B --questions nq.jsonl --out runs/nq",
    "hallutrace extract --preset triviaqa-qwen3-4b",
)
add_to(
    app,
    "plan",
    plan.run_plan,
    "hallutrace plan --model Qwen/Qwen3-4B --questions nq.jsonl",
    "hallutrace plan --preset triviaqa-qwen3-4b --answer-tokens 30 --measure",
)
add_to(
    app,
    "inspect",
    inspect.run_inspect,
    "hallutrace inspect runs/demo",
    "hallutrace inspect runs/demo --trace 0",
)
add_to(app, "verify", verify.run_verify, "hallutrace verify runs/demo")
add_to(app, "repair", repair.run_repair, "hallutrace repair runs/demo --dry-run")
add_to(
    app,
    "label",
    label.run_label,
    "hallutrace label runs/demo --by contains",
    "hallutrace label runs/demo --from anna.csv",
    "hallutrace label runs/demo --agreement contains anna",
)
add_to(app, "merge", merge.run_merge, "hallutrace merge runs/a runs/b --out runs/both")
add_to(
    app,
    "subset",
    subset.run_subset,
    "hallutrace subset runs/demo --label contains=1 --out runs/hallucinated",
    "hallutrace subset runs/demo --where 'prompt_length < 30' --sample 50 --out runs/short",
)
add_to(
    app,
    "detectors",
    detectors.run_detectors,
    "hallutrace detectors",
    "hallutrace detectors lapeigvals",
    "hallutrace detectors --run runs/demo --plugin my_detector.py",
)
add_to(
    app,
    "train",
    train.run_train,
    "hallutrace train runs/demo --detector lookback-lens --label contains --out detectors/ll",
    "hallutrace train runs/demo --detector mlp-probe --label contains --epochs 20 --out "
    "detectors/mlp",
)
add_to(
    app,
    "evaluate",
    evaluate.run_evaluate,
    "hallutrace evaluate runs/demo --label contains --quick",
    "hallutrace evaluate runs/demo --label contains --detectors perplexity,lookback-lens",
    "hallutrace evaluate --train-on runs/nq --test-on runs/triviaqa --label contains",
)
add_to(
    app,
    "score",
    score.run_score,
    "hallutrace score runs/new --detector detectors/ll --out scores.csv",
)
add_to(
    app,
    "ask",
    ask.run_ask,
    "hallutrace ask 'Who wrote Hamlet?' --detector detectors/ll",
)
add_to(
    app,
    "project",
    project.run_project,
    "hallutrace project runs/demo",
    "hallutrace project runs/demo --method tsne --layer 2 --token last_prompt --seed 1",
)
add_to(
    app,
    "report",
    report.run_report,
    "hallutrace report runs/demo",
    "hallutrace report runs/demo --evaluation evaluations/demo-contains --pdf demo.pdf",
)
add_to(
    app,
    "explore",
    explore.run_explore,
    "hallutrace explore runs",
    "hallutrace explore runs/demo evaluations/demo detectors/ll --open",
)
add_to(
    app,
    "figure",
    figure.run_figure,
    "hallutrace figure layers-heads runs/demo --marginal entropy",
    "hallutrace figure roc runs/demo --evaluation evaluations/demo-contains --format pdf",
    "hallutrace figure attention-graph runs/demo --trace person-0217-trade --layer 2 --out a.pdf",
    "hallutrace figure training --detector detectors/mlp",
)


def main() -> NoReturn:
    """Runs a command.

    Exit codes: 0 done; 1 a command found something wrong, or hallutrace has a fault and shows its
    traceback; 2 a mistake in the command or its input, told in one line; 130 stopped by Ctrl-C; 141
    the reader of a pipe has gone.
    """
    prepare_streams()
    if COMPLETION in os.environ:
        app(prog_name="hallutrace")
    # The panels of the help are drawn with characters that not every stream has.
    app.rich_markup_mode = "rich" if is_unicode(sys.stdout) else None
    try:
        command = typer.main.get_command(app)
        # Not `app()`: typer would print errors by itself, with the user's text in them unescaped.
        with command.make_context("hallutrace", sys.argv[1:]) as context:
            command.invoke(context)
    except typer.Exit as stop:
        raise SystemExit(stop.exit_code) from None
    except SystemExit:
        raise
    except BrokenPipeError:
        end_writing()
        raise SystemExit(PIPE_CLOSED) from None
    except BaseException as error:
        raise SystemExit(report_error(error)) from None
    raise SystemExit(0)
