"""`hallutrace project`: hidden states as points of a plane, stored beside the run."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hallutrace.commands.common_options import AsJson, RunFolder, choices
from hallutrace.commands.console import (
    ERR,
    OUT,
    duration,
    percent,
    plain,
    print_json,
    styled,
)
from hallutrace.commands.progress_display import LiveDisplay
from hallutrace.errors import DamagedError, NotInRunError

if TYPE_CHECKING:
    from hallutrace.store.reader import TraceStore
    from hallutrace.viewer.projections.files import Wanted
    from hallutrace.viewer.projections.projection import Projection


class StepDisplay:
    """A bar for each thing that is done, one after the other."""

    def __init__(self) -> None:
        self._what = ""
        self._done = 0
        self._bar: LiveDisplay | None = None

    def __enter__(self) -> StepDisplay:
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.__exit__(*error)

    def step(self, what: str, done: int, total: int) -> None:
        """Shows how far what is being done has come."""
        if what != self._what or done < self._done or self._bar is None:
            self.__exit__()
            self._what, self._done, self._bar = what, done, LiveDisplay(ERR, "steps")
            self._bar.begin(total, done)
        self._bar.move(done - self._done, what)
        self._done = done


def run_project(
    run: RunFolder,
    method: Annotated[
        str,
        typer.Option(
            help="Method: pca is exact; tsne and umap need the extra `projections`.",
            **choices("pca", "tsne", "umap"),
        ),
    ] = "pca",
    layer: Annotated[
        int | None,
        typer.Option(
            help="Number of the layer, from 0 (default: the last with hidden states).", metavar="N"
        ),
    ] = None,
    token: Annotated[
        str | None,
        typer.Option(
            help="Token whose hidden state is taken (default: last_answer).",
            **choices("last_answer", "last_prompt", "last", "mean_answer", "first_answer"),
        ),
    ] = None,
    seed: Annotated[
        int,
        typer.Option(help="Seed of t-SNE and UMAP.", metavar="N", min=0, max=2**32 - 1),
    ] = 0,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Make it again where the run has it already.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Project the hidden states of all traces to a plane, for the map of `hallutrace report`.

    The projection is stored in the run, in `projections/`. A run that has it already is left as it
    is; one that has grown since gets it anew.
    """
    from hallutrace.store.reader import open_run
    from hallutrace.viewer.projections import files
    from hallutrace.viewer.projections.hidden import chosen_states
    from hallutrace.viewer.projections.projection import project

    store, began = open_run(run), time.monotonic()
    wanted = files.Wanted(method, *chosen_states(store, layer, token), seed)
    found = None if overwrite else _stored(store, wanted)
    made = found is None
    if found is None:
        with StepDisplay() as display:
            found = project(store, method, wanted.layer, wanted.token, seed, display.step)
        files.write(store, found)
    path = files.path_of(store, wanted)
    if as_json:
        print_json(_facts(found, path, made))
    else:
        _print(found, path, time.monotonic() - began if made else None)


def _stored(store: TraceStore, wanted: Wanted) -> Projection | None:
    """The projection if the run has it, of its traces as they are now."""
    from hallutrace.viewer.projections import files

    with suppress(NotInRunError):
        try:
            return files.read(store, wanted)
        except DamagedError as error:
            ERR.print(f"Warning: {error}")
    return None


def _facts(found: Projection, path: Path, made: bool) -> dict[str, Any]:
    return {
        "file": str(path),
        "made": made,
        "method": found.method,
        "layer": found.layer,
        "token": found.token,
        "seed": found.seed,
        "traces": len(found.positions),
        "explained": found.explained,
        "preservation": found.preservation.to_json(),
        "parameters": found.parameters,
        "versions": found.versions,
    }


def _print(found: Projection, path: Path, seconds: float | None) -> None:
    OUT.print(
        styled((plain(str(path)), "bold"), "" if seconds is not None else " is there already")
    )
    took = "" if seconds is None else f", in {duration(seconds)}"
    OUT.print(
        f"{found.method} of the state `{found.token}` of layer {found.layer}, "
        f"{len(found.positions):,} traces{took}"
    )
    if found.explained is not None:
        kept = " and ".join(map(percent, found.explained))
        OUT.print(f"variance along the axes: {kept}")
    kept_ones = found.preservation
    if kept_ones.share is not None:
        OUT.print(
            f"nearest neighbours kept: {percent(kept_ones.share)} of {kept_ones.k} "
            f"(by chance {percent(kept_ones.chance)}; among {kept_ones.traces:,} traces)"
        )
