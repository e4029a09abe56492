"""`hallutrace subset`."""

from __future__ import annotations

import builtins
from collections.abc import Callable
from typing import Annotated, Any

import typer

from hallutrace.commands.common_options import NewRun, RunFolder, completes
from hallutrace.commands.console import OUT, plain
from hallutrace.errors import HallutraceError, InputError
from hallutrace.paths import expanded


def run_subset(
    run: RunFolder,
    out: NewRun,
    ids: Annotated[
        str | None,
        typer.Option(
            help="Keep these question ids: separated by commas, or @FILE with one a line.",
            metavar="ID,...",
        ),
    ] = None,
    indices: Annotated[
        str | None,
        typer.Option(
            help="Keep the traces of these numbers, from 0: 3,7,100:200.", metavar="N,A:B,..."
        ),
    ] = None,
    label: Annotated[
        str | None,
        typer.Option(
            help="Keep traces by their label of that name, 1 hallucinated or 0 right; or by "
            "whether the answer contains a reference.",
            metavar="NAME=0|NAME=1|right|wrong",
            autocompletion=completes(lambda: ("right", "wrong")),
        ),
    ] = None,
    where: Annotated[
        str | None,
        typer.Option(
            help="Keep traces for which a Python expression over their meta is true: "
            '"prompt_length < 30 and sample == 0".',
            metavar="EXPRESSION",
        ),
    ] = None,
    sample: Annotated[
        int | None,
        typer.Option(help="Keep N of the traces, drawn at random.", metavar="N", min=1),
    ] = None,
    seed: Annotated[
        int, typer.Option(help="Seed of the random choice of --sample.", metavar="N")
    ] = 0,
) -> None:
    """Make a run of some traces of another; conditions that are given together must all hold."""
    from hallutrace.store.subset import subset

    part = subset(
        run,
        out,
        ids=_ids(ids),
        indices=_indices(indices),
        label=label,
        where=condition_of(where),
        sample=sample,
        seed=seed,
    )
    OUT.print(plain(str(part)))


def _ids(text: str | None) -> list[str] | None:
    if text is None:
        return None
    if not text.startswith("@"):
        return text.split(",")
    path = expanded(text[1:])
    try:
        # Only newlines end a line; other separators that Python knows may be within an id.
        lines = path.read_bytes().decode("utf-8-sig").replace("\r\n", "\n").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        got = error.strerror if isinstance(error, OSError) else "text that is not UTF-8"
        raise InputError(
            f"Expected a file with one id a line, got {got} at {text[1:]} - check --ids"
        ) from None
    return [line for line in lines if line]


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


def condition_of(text: str | None) -> Callable[[Any], bool] | None:
    """A Python expression over the names in a trace's meta and Python's built-in names.

    It runs without a sandbox: read an expression from somebody else before you run it.

    Examples:
        >>> holds = condition_of("prompt_length < 1000")
        >>> holds(hallutrace.open(run)[0])
        True
    """
    if text is None:
        return None
    try:
        code = compile(text.strip(), "--where", "eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        # ValueError: a text with zeros in it. The others: too many brackets.
        why = error.msg if isinstance(error, SyntaxError) else str(error)
        raise InputError(
            f"Expected a Python expression, got {text!r} ({why}) - change --where"
        ) from None

    def holds(trace: Any) -> bool:
        try:
            # As globals: what a comprehension reads is looked up there before Python 3.12.
            return bool(eval(code, {**trace.meta, "__builtins__": builtins}))
        except HallutraceError:
            raise
        except Exception as error:
            raise InputError(
                f"Expected an expression over {', '.join(trace.meta)}, got {text!r} "
                f"({type(error).__name__}: {error}) of the trace {trace.id!r} - change --where"
            ) from None

    return holds
