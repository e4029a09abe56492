"""`hallutrace ask`: an answer, traced and scored, with its risk by token."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hallutrace.commands.common_options import (
    AsJson,
    DetectorFolder,
    Device,
    Plugins,
    TrustRemoteCode,
)
from hallutrace.commands.console import ERR, OUT, plain, print_json, styled
from hallutrace.config import ExtractConfig
from hallutrace.errors import IdentityError, InputError

if TYPE_CHECKING:
    from hallutrace.detect import Detector
    from hallutrace.detect.provenance import Provenance
    from hallutrace.store.trace import Trace

_COLOURS = ("green", "yellow", "dark_orange", "red")


def run_ask(
    question: Annotated[str, typer.Argument(help="The question to ask.", metavar="QUESTION")],
    detector: DetectorFolder,
    context: Annotated[
        str | None,
        typer.Option(help="A text that the question is about (default: none).", metavar="TEXT"),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="Name or folder of the model (default: the one whose traces the detector was "
            "trained on).",
            metavar="NAME",
        ),
    ] = None,
    device: Device = "auto",
    trust_remote_code: TrustRemoteCode = False,
    plugins: Plugins = None,
    as_json: AsJson = False,
) -> None:
    """Ask the model one question, and score its answer with a trained detector.

    The model of the run that the detector was trained on is asked with the same settings. The
    answer is printed with its risk, and with the risk of each token where the detector gives one.
    """
    import numpy as np

    from hallutrace.detect import load
    from hallutrace.detect.provenance import Provenance
    from hallutrace.store.finite_numbers import require_finite
    from hallutrace.store.reader import open_run

    if not question.strip():
        raise InputError("Expected a question, got none - write it after `hallutrace ask`")
    loaded, provenance = load(detector), Provenance.read(detector)
    options = {"device": device, "trust_remote_code": trust_remote_code}
    if model is not None:
        options |= {"model": model, "revision": None, "adapter": None}
    with tempfile.TemporaryDirectory(prefix="hallutrace-") as folder:
        config = _config(question, context, options, provenance, Path(folder))
        ERR.print(f"Loading the model {plain(config.model)} ...")
        from hallutrace.commands.library_warnings import quiet_libraries
        from hallutrace.extraction.pipeline import extract

        quiet_libraries(is_small=config.model == "demo")
        run = extract(config).folder
        with open_run(run) as store:
            _check_model(detector, model, provenance, store.manifest.identity["model"])
            if not len(store):
                raise InputError(_failure(run))
            loaded.check(store)
            trace = store[0]
            score = loaded.score(trace)
            by_token = loaded.token_scores(trace)
            every = np.array([score, *([] if by_token is None else by_token)])
            require_finite(every, f"scores of `{loaded.name}`", trace)
            curve = None if provenance is None else provenance.curve
            risk = None if curve is None else float(curve([score])[0])
            pieces = _pieces(trace, config)
            if as_json:
                _print_json(trace, score, risk, pieces, by_token)
            else:
                _print(trace, loaded, score, risk, pieces, by_token)


def _check_model(
    detector: Path, model: str | None, provenance: Provenance | None, here: dict[str, Any]
) -> None:
    """Refuses another model than the one whose traces the detector was trained on.

    The weights in a folder may have changed since. With ``--model`` there is only a warning.

    Raises:
        IdentityError: naming what differs.
    """
    if provenance is None:
        return
    from hallutrace.store.folder import differences

    there = provenance.identity["model"]
    # The same files under another name are the same model.
    found = [one for one in differences(there, here) if one[0] not in ("name", "base.name")]
    if not found:
        return
    fields = "; ".join(f"{name} is {was}, here {now}" for name, was, now in found)
    if model is None:
        raise IdentityError(
            f"Expected the model whose traces {detector} was trained on, got another one in "
            f"{here['name']} ({fields}) - restore it, or ask this one with --model {here['name']}"
        )
    ERR.print(
        f"Warning: the detector was trained on traces of another model ({fields}), so its score "
        "may mean little",
        highlight=False,
        markup=False,
    )


def _config(
    question: str,
    context: str | None,
    given: dict[str, Any],
    provenance: Provenance | None,
    folder: Path,
) -> ExtractConfig:
    """The settings of the run that the detector was trained on, for one question."""
    from hallutrace.extraction.same_settings import settings_of

    file = folder / "question.jsonl"
    row = {"id": "question", "question": question, "context": context}
    file.write_text(json.dumps(row) + "\n")
    if provenance is None:
        ERR.print("Nothing tells which model it was trained on: taking the defaults of extract.")
        options = {}
    else:
        options = settings_of(provenance.identity, has_context=context is not None)
    # The files of a detector cannot permit running code: `trust_remote_code` is among those given.
    options |= given | {"questions": str(file), "out": folder / "run", "batch_size": 1}
    return ExtractConfig.from_options(options)


def _pieces(trace: Trace, config: ExtractConfig) -> list[str]:
    """The text that each answer token adds, special tokens shown."""
    from hallutrace.model.files import ModelName
    from hallutrace.model.loading import load_tokenizer

    tokenizer = load_tokenizer(ModelName.of(config))
    ids = trace.answer_tokens.tolist()
    # A character may take several tokens, which decode to something only together.
    texts = [tokenizer.decode(ids[:end]) for end in range(len(ids) + 1)]
    return [
        after[len(before) :] if after.startswith(before) else tokenizer.decode([id_])
        for before, after, id_ in zip(texts[:-1], texts[1:], ids, strict=True)
    ]


def _print(
    trace: Trace,
    detector: Detector,
    score: float,
    risk: float | None,
    pieces: list[str],
    by_token: Any,
) -> None:
    OUT.print(styled(("Q  ", "bold"), plain(trace.question)))
    styles = _styles(by_token, len(pieces))
    answer = [(plain(piece), style) for piece, style in zip(pieces, styles, strict=True)]
    OUT.print(styled(("A  ", "bold"), *answer))
    shown_risk = "" if risk is None else f"risk {risk:.2f}, "
    OUT.print(f"{shown_risk}score {score:.4g} of {detector.name}")
    if risk is None:
        OUT.print("No curve makes the score a probability: it was not trained by hallutrace train.")
    if by_token is None:
        OUT.print(f"{detector.name} has no risk by token.")
        return
    OUT.print("Risk by token (colours compare the tokens of this answer):")
    for part, value in zip(answer, by_token, strict=True):
        OUT.print(styled(f"{value:10.4g}  ", part))


def _print_json(
    trace: Trace, score: float, risk: float | None, pieces: list[str], by_token: Any
) -> None:
    about = {
        "question": trace.question,
        "answer": trace.answer,
        "score": score,
        "risk": risk,
        "tokens": pieces,
        "token_scores": None if by_token is None else [float(value) for value in by_token],
    }
    print_json(about)


def _styles(by_token: Any, count: int) -> list[str]:
    """A colour for each token, by where it lies between the least and the greatest risk."""
    if by_token is None:
        return [""] * count
    import numpy as np

    values = np.asarray(by_token, np.float64)
    reach = float(values.max() - values.min())
    if reach == 0:
        return [""] * count
    steps = (values - values.min()) / reach * len(_COLOURS)
    return [_COLOURS[min(int(step), len(_COLOURS) - 1)] for step in steps]


def _failure(folder: Path) -> str:
    from hallutrace.store.folder import Run

    failures = Run(folder).failures.read()
    reason = failures[-1].error if failures else "no trace"
    return f"Expected an answer, got: {reason} - ask in another way"
