"""`hallutrace detectors`: what there is, what it reads, and whether a run has it."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Column, Table

from hallutrace.commands.common_options import AsJson, Plugins, completes, detector_names
from hallutrace.commands.console import OUT, cell, plain, print_json, styled
from hallutrace.errors import HallutraceError
from hallutrace.paths import expanded

if TYPE_CHECKING:
    from hallutrace.detect import Detector
    from hallutrace.store.reader import TraceStore


def run_detectors(
    name: Annotated[
        str | None,
        typer.Argument(
            help="Detector to show with all its options (default: list all detectors).",
            metavar="NAME",
            autocompletion=completes(detector_names),
        ),
    ] = None,
    run: Annotated[
        Path | None,
        typer.Option(
            help="Folder of a run: tell whether it has what each detector reads (default: none).",
            metavar="RUN",
            parser=expanded,
        ),
    ] = None,
    plugins: Plugins = None,
    as_json: AsJson = False,
) -> None:
    """List the detectors, with what each reads of a trace, its options and its source.

    They are built in, come with an installed package (entry points of the group
    hallutrace.detectors) or are registered by a file given with --plugin. With --run each is exact
    (the run has all that it reads, as it was computed), near (some of it is rounded, combined or
    kept for fewer tokens) or refused (some of it is missing), with the reason.
    """
    from hallutrace.detect import find, names
    from hallutrace.store.reader import open_run

    if name is not None:
        find(name)
    store = None if run is None else open_run(run)
    found = [_described(one, store) for one in (names() if name is None else [name])]
    if as_json:
        print_json(found if name is None else found[0])
    elif name is not None:
        _show_one(found[0])
    else:
        _show_all(found, store is not None)


def _described(name: str, store: TraceStore | None) -> dict[str, Any]:
    """All that is known of a detector, JSON-able."""
    from hallutrace.detect import make
    from hallutrace.detect.registry import REGISTRY
    from hallutrace.third_party import reason_of

    about: dict[str, Any] = {"name": name, "from": str(REGISTRY.origin(name))}
    try:
        detector = make(name)
        about |= _facts(detector)
        suitability = None if store is None else detector.suitability(store)
    except HallutraceError as error:
        return about | {"status": "broken", "reasons": [str(error)]}
    except Exception as error:  # whatever someone else's code raises costs its own row
        return about | {"status": "broken", "reasons": [reason_of(error)]}
    if suitability is not None:
        about |= {"status": suitability.status, "reasons": list(suitability.reasons)}
    return about


def _facts(detector: Detector) -> dict[str, Any]:
    from hallutrace.detect.options import option_help

    told = inspect.cleandoc(type(detector).__doc__ or "").partition("\n\nExamples:")[0]
    paragraphs = told.split("\n\n")
    return {
        "summary": " ".join(paragraphs[0].split()),
        "description": "\n\n".join(paragraphs[1:]),
        "trained": detector.trained,
        "needs": str(detector.needs),
        "packages": list(detector.packages),
        "source": {
            "text": detector.source.text,
            "follows": detector.source.follows,
            "code": detector.source.code,
        },
        "options": [vars(one) for one in option_help(type(detector).Options)],
    }


def _show_all(found: list[dict[str, Any]], with_run: bool) -> None:
    columns = ["detector", "reads", "as in", "from"]
    table = Table(*(Column(name, overflow="fold") for name in columns))
    if with_run:
        table.add_column("on this run")
    for about in found:
        source = about.get("source", {})
        cells = [
            about["name"],
            about.get("needs", "-"),
            source.get("follows", "-"),
            about["from"],
        ]
        if with_run:
            cells.append(about["status"])
        table.add_row(*(cell(one, 200) for one in cells))
    OUT.print(table)
    for about in found:
        for reason in about.get("reasons", []):
            OUT.print(styled((about["name"], "bold"), f" {about['status']}: {plain(reason)}"))
    OUT.print("One with its options: hallutrace detectors NAME")


def _show_one(about: dict[str, Any]) -> None:
    OUT.print(styled((about["name"], "bold"), f" ({plain(about['from'])})"))
    if about.get("status") != "broken":
        source = about["source"]
        where = ": ".join(filter(None, (source["follows"], source["text"])))
        lines = [about["summary"], "", f"reads   {about['needs']}", f"as in   {where}"]
        lines += [f"code    {source['code']}"] if source["code"] else []
        lines += [f"needs   {', '.join(about['packages'])}"] if about["packages"] else []
        for line in lines:
            OUT.print(plain(line), highlight=False, markup=False)
        if about["options"]:
            table = Table("option", "takes", "default", Column("what it does", ratio=1))
            for one in about["options"]:
                default = _written(one["default"])
                row = (one["name"], one["takes"], default, one["description"])
                table.add_row(*(cell(text, 1000) for text in row))
            OUT.print(table)
    if "status" in about:
        for line in (f"on this run: {about['status']}", *about["reasons"]):
            OUT.print(plain(line), highlight=False, markup=False)


def _written(value: Any) -> str:
    """A value of an option as it is given on the command line."""
    if isinstance(value, list):
        return f"[{','.join(map(str, value))}]"
    return "none" if value is None else str(value).lower()
