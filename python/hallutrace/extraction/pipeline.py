"""``extract``: opens questions, model and folder, has the run walked, and tells what failed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hallutrace.config import ExtractConfig
from hallutrace.cpu_threads import core_threads_like_torch
from hallutrace.errors import HallutraceError, InputError, StorageError
from hallutrace.extraction.shard_walk import Extraction
from hallutrace.extraction.summary import Summary
from hallutrace.model.loading import Loaded, load
from hallutrace.option_names import naming_parameters
from hallutrace.progress import Reporter, Silent
from hallutrace.questions import Columns, QuestionSource, open_questions, open_responses
from hallutrace.retry import Retry
from hallutrace.store import overwriting
from hallutrace.store.folder import Run

# What loads a model, and means nothing for one that is in memory.
LOADING = (
    "model",
    "revision",
    "adapter",
    "dtype",
    "quantization",
    "device",
    "device_map",
    "attn_implementation",
    "trust_remote_code",
)


def extract(
    config: ExtractConfig | None = None,
    reporter: Reporter | None = None,
    *,
    model: Any = None,
    tokenizer: Any = None,
) -> Summary:
    """Extracts a run, or goes on with it.

    A model object is traced as it is and left as it was: training mode, attention implementation,
    generation configuration, hooks, random numbers. The run's identity holds a digest of its
    weights, configuration, adapters and tokenizer, so that another model, or the same one after a
    step of training, is refused; that reads all weights once at every start (about 0.7 GB a second
    and core).

    Args:
        config: what to do; the default is the small model on 400 of its own questions.
        reporter: told of progress; the default says nothing.
        model: a causal language model of transformers, or a ``PeftModel`` of one, instead of the
            one that ``config`` names.
        tokenizer: the tokenizer of that model.

    Returns:
        What was done; open the run with ``hallutrace.open(summary.folder)``.

    Raises:
        InputError: questions, options or folder that cannot be used.
        IdentityError: the folder holds a run with other settings, or of another model.
        ModelError: a model that cannot be loaded or captured.
        StorageError: the file system refused.

    Example:
        >>> config = hallutrace.ExtractConfig(model="demo", questions="demo:4", out=folder / "run")
        >>> extract(config).traces
        4
    """
    config = config or ExtractConfig()
    reporter = reporter or Silent()
    retry = Retry(reporter.note)
    source = open_source(config, retry)
    for line in source.describe():
        reporter.note(line)
    run = Run(config.out or Path("runs") / source.name)
    run.check_ours()
    overwriting.clear_remains(run)
    if config.overwrite:
        overwriting.check_may_go(run)
    with _model(config, model, tokenizer, retry) as loaded:
        # Only now: an existing run is kept if the model does not load.
        if config.overwrite and run.folder.exists():
            run.check_ours()
            overwriting.clear(run)
        return walk(config, source, run, loaded, reporter)


def walk(
    config: ExtractConfig, source: QuestionSource, run: Run, loaded: Loaded, reporter: Reporter
) -> Summary:
    """Makes all shards of a run that are not committed yet.

    Raises:
        StorageError: the file system refused.
        HallutraceError: as :func:`extract`.
    """
    try:
        with core_threads_like_torch():
            return Extraction(config, source, run, loaded, reporter).run_all()
    except OSError as error:
        if isinstance(error, HallutraceError):
            raise
        where = f" at {error.filename}" if error.filename else ""
        raise StorageError(
            f"Expected to read and write the run {run.folder}, got: {error.strerror or error}"
            f"{where} - fix that; the same command goes on with the run"
        ) from error


@contextmanager
def _model(config: ExtractConfig, model: Any, tokenizer: Any, retry: Retry) -> Iterator[Loaded]:
    """The model that was given, as long as it is needed, or else the one that is named."""
    if model is None and tokenizer is None:
        yield load(config, retry)
        return
    from hallutrace.model.objects import lent

    if model is None or tokenizer is None:
        missing = "model" if model is None else "tokenizer"
        raise InputError(f"Expected `model` and `tokenizer`, got no `{missing}` - give both")
    given = [name for name in LOADING if getattr(config, name) != default_of(name)]
    if given:
        raise InputError(
            f"Expected a configuration that names no model beside `model`, got `{given[0]}` - it "
            "is for loading one: leave it out"
        )
    with naming_parameters(), lent(model, tokenizer, retry.note, identify=True) as loaded:
        yield loaded


def default_of(name: str) -> Any:
    """The default of a field of the configuration."""
    return ExtractConfig.model_fields[name].default


def open_source(config: ExtractConfig, retry: Retry | None = None) -> QuestionSource:
    """The questions, or the responses, that a configuration names."""
    columns = Columns(
        id=config.id_column,
        question=config.question_column,
        answers=config.answers_column,
        context=config.context_column,
        group=config.group_column,
        response=config.response_column,
        spans=config.spans_column,
    )
    if config.responses is not None:
        return open_responses(str(config.responses), columns)
    return open_questions(config.questions, columns, retry)
