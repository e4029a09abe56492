"""The command line: `hallutrace COMMAND --help` teaches each command."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any, NoReturn, Optional

import typer
from typer.core import TyperGroup

from hallutrace.commands import app_detect as cli_detect
from hallutrace.commands.faults import tell
from hallutrace.commands.options import config_options
from hallutrace.commands.pipes import PIPE_CLOSED, end_writing
from hallutrace.commands.text import OUT, is_unicode, prepare_streams
from hallutrace.paths import expanded


class _Commands(TyperGroup):
    """Ends with 141, as the signal would, where whoever reads the output stops early."""

    def invoke(self, ctx: Any) -> Any:
        try:
            try:
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
    "Begin with `hallutrace extract`: without options the small model in the package answers 400 "
    "of its own questions, with no network and no GPU.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)


def _print_version(is_asked: bool) -> None:
    if is_asked:
        import hallutrace

        OUT.print(f"hallutrace {hallutrace.__version__}")
        raise typer.Exit


Preset = Annotated[
    Optional[str],
    typer.Option(help="named settings of a whole experiment: triviaqa-qwen3-4b", metavar="NAME"),
]
ConfigFile = Annotated[
    Optional[Path],
    typer.Option(
        "--config",
        help="YAML file with options by name; options given here win",
        metavar="FILE",
        parser=expanded,
    ),
]
Version = Annotated[
    bool,
    typer.Option(
        "--version", help="print the version and exit", callback=_print_version, is_eager=True
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="for machines: JSON on standard output")]
RunFolder = Annotated[
    Path,
    typer.Argument(help="folder that `hallutrace extract` wrote", metavar="RUN", parser=expanded),
]


@app.callback()
def about(version: Version = False) -> None:
    """Holds the options of no command."""


@app.command()
@config_options
def extract(
    preset: Preset = None, config: ConfigFile = None, as_json: AsJson = False, **options: Any
) -> None:
    """Ask a model questions and keep a trace of each answer.

    Without options: the small model in the package on 400 of its own questions, into runs/demo.
    The same command again goes on where it stopped; --limit may grow; any other difference is
    refused.
    """
    from hallutrace.commands.extract import run_extract

    run_extract(preset, config, options, as_json)


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
    from hallutrace.commands.plan import run_plan

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
    from hallutrace.commands.inspect import run_inspect

    run_inspect(run, trace, shard, read_all, as_json)


@app.command()
def verify(
    run: RunFolder,
    fast: Annotated[
        bool, typer.Option("--fast", help="headers and sizes alone, not checksums and data")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Check every byte of a run: exit code 0 if it is whole, 1 if a shard is damaged."""
    from hallutrace.commands.verify import run_verify

    run_verify(run, fast, as_json)


@app.command()
def repair(
    run: RunFolder,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="change nothing, tell what would be done")
    ] = False,
    questions: Annotated[
        Optional[str],
        typer.Option(
            help="the questions or responses that the run was made of, if they have moved",
            metavar="SOURCE",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make lost commit records again, and clear what kills left; a damaged shard stays as it is.

    Exit code 0 if nothing wrong is left, 1 if something could not be repaired.
    """
    from hallutrace.commands.repair import run_repair

    run_repair(run, dry_run, questions, as_json)


@app.command()
def label(
    run: RunFolder,
    names: Annotated[
        Optional[list[str]],
        typer.Argument(help="with --agreement: labels to compare (default: all)", metavar="NAME"),
    ] = None,
    by: Annotated[
        Optional[str],
        typer.Option(
            help="judge answers against their references, best over all of them: exact, contains "
            "(as whole words), f1 (of words), rouge-l (longest common subsequence of words)",
            metavar="PROTOCOL",
        ),
    ] = None,
    given: Annotated[
        Optional[Path],
        typer.Option(
            "--from",
            help="take the labels of a person or a judge: .jsonl, .json, .csv, .tsv or .parquet "
            "with id, label (1, true, hallucinated; 0, false, right; null), and if there, sample "
            "and score",
            metavar="FILE",
            parser=expanded,
        ),
    ] = None,
    agreement: Annotated[
        bool, typer.Option("--agreement", help="compare the labels that the run has")
    ] = False,
    normalize: Annotated[
        Optional[str],
        typer.Option(
            help="with --by: how texts are made comparable. unicode (the default) knows scripts "
            "without spaces, typographic marks, full-width forms and accents; triviaqa is the rule "
            "of TriviaQA's evaluation script, whose labels are called PROTOCOL-triviaqa",
            metavar="unicode|triviaqa",
        ),
    ] = None,
    name: Annotated[
        Optional[str],
        typer.Option(help="of the labels (default: the protocol, or the file)", metavar="NAME"),
    ] = None,
    threshold: Annotated[
        Optional[float],
        typer.Option(
            help="least score of a right answer (default: f1 .5, rouge-l .3)",
            metavar="SCORE",
        ),
    ] = None,
    drop: Annotated[
        Optional[str],
        typer.Option(help="scores that are neither right nor hallucinated", metavar="LOW:HIGH"),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="replace labels of that name that are others")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Label answers as hallucinated (1) or right (0), or compare labels with --agreement.

    Any number of labels lie beside each other in labels/NAME.jsonl. The same command again labels
    what a run has grown by.
    """
    from hallutrace.commands.label import Asked, run_label

    run_label(
        Asked(
            run, names or [], by, given, agreement, normalize, name, threshold, drop, overwrite,
            as_json,
        )
    )  # fmt: skip


@app.command()
def merge(
    runs: Annotated[
        list[Path],
        typer.Argument(
            help="runs, in the order of their traces", metavar="RUN...", parser=expanded
        ),
    ],
    out: Annotated[
        Path, typer.Option(help="folder of the new run", metavar="PATH", parser=expanded)
    ],
    force_differing: Annotated[
        Optional[list[str]],
        typer.Option(help="field of the identity that may differ", metavar="FIELD"),
    ] = None,
) -> None:
    """Make one run of several that differ in nothing but their questions; shards are linked."""
    from hallutrace.commands.rework import run_merge

    run_merge(runs, out, force_differing or [])


@app.command()
def subset(
    run: RunFolder,
    out: Annotated[
        Path, typer.Option(help="folder of the new run", metavar="PATH", parser=expanded)
    ],
    ids: Annotated[
        Optional[str],
        typer.Option(help="question ids, with commas, or @FILE with one a line", metavar="ID,..."),
    ] = None,
    indices: Annotated[
        Optional[str],
        typer.Option(help="places in the run, from 0: 3,7,100:200", metavar="N,A:B,..."),
    ] = None,
    label: Annotated[
        Optional[str],
        typer.Option(
            help="by labels of that name: 1 hallucinated, 0 right; or whether the answer contains "
            "a reference",
            metavar="NAME=0|NAME=1|right|wrong",
        ),
    ] = None,
    where: Annotated[
        Optional[str],
        typer.Option(
            help='Python expression over a trace\'s meta: "prompt_length < 30 and sample == 0"',
            metavar="EXPRESSION",
        ),
    ] = None,
    sample: Annotated[
        Optional[int], typer.Option(help="so many at random", metavar="N", min=1)
    ] = None,
    seed: Annotated[int, typer.Option(help="of the random choice", metavar="N")] = 0,
) -> None:
    """Make a run of a part of another; conditions that are given together must all hold."""
    from hallutrace.commands.rework import run_subset

    run_subset(run, out, ids, indices, label, where, sample, seed)


cli_detect.add_to(app)


def main() -> NoReturn:
    """Runs a command.

    Exit codes: 0 done; 1 what a command found wrong, or a fault of hallutrace, which shows its
    traceback; 2 a mistake in what was given, told in a line; 130 stopped by Ctrl-C; 141 the reader
    of a pipe has gone.
    """
    prepare_streams()
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
        raise SystemExit(tell(error)) from None
    raise SystemExit(0)
