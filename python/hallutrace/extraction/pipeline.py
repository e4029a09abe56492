"""``extract``: opens the questions, the model and the run folder, and writes the shards."""

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
from hallutrace.progress import Reporter, Silent
from hallutrace.questions import Columns, QuestionSource, open_questions, open_responses
from hallutrace.retry import Retry
from hallutrace.store import overwriting
from hallutrace.store.folder import Run

# Fields of the configuration that have no effect on a model object.
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
    """Extracts a run, or resumes it.

    A model object is left unchanged: training mode, attention implementation, generation
    configuration, hooks, random number generators. The identity of its run contains a digest of
    weights, configuration, adapters and tokenizer, so resuming with another or a further trained
    model raises an error. The digest reads all weights at every start (about 0.7 GB per second and
    core).

    Args:
        config: the configuration; the default extracts 400 demo questions with the demo model.
        reporter: receives progress and notes; the default discards them.
        model: a causal language model of transformers, or a ``PeftModel`` of one, instead of the
            model that ``config`` names.
        tokenizer: the tokenizer of ``model``.

    Returns:
        Counts, size and duration; open the run with ``hallutrace.open(summary.folder)``.

    Raises:
        InputError: the questions, options or folder are invalid.
        IdentityError: the folder contains a run with other settings or of another model.
        ModelError: the model cannot be loaded or captured.
        StorageError: reading or writing files failed.

    Examples:
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
        # After loading, so that a model that cannot be loaded does not cost the existing run.
        if config.overwrite and run.folder.exists():
            run.check_ours()
            overwriting.clear(run)
        return walk(config, source, run, loaded, reporter)


def walk(
    config: ExtractConfig, source: QuestionSource, run: Run, loaded: Loaded, reporter: Reporter
) -> Summary:
    """Extracts all shards of a run that are not committed yet.

    Args:
        config: the configuration.
        source: the questions.
        run: folder of the run.
        loaded: the model.
        reporter: receives progress and notes.

    Raises:
        StorageError: reading or writing files failed.
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
    """Yields the model object, or loads the model that the configuration names."""
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
    with lent(model, tokenizer, retry.note, identify=True) as loaded:
        yield loaded


def default_of(name: str) -> Any:
    """The default of a field of the configuration.

    Examples:
        >>> default_of("dtype")
        'auto'
    """
    return ExtractConfig.model_fields[name].default


def open_source(config: ExtractConfig, retry: Retry | None = None) -> QuestionSource:
    """Opens the questions or the responses that a configuration names.

    Args:
        config: the configuration.
        retry: repeats downloads that fail.

    Raises:
        InputError: the source does not exist or is invalid.

    Examples:
        >>> open_source(ExtractConfig(questions="demo:4")).total
        4
    """
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
