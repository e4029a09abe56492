"""``trace``: traces of a model object and a list of prompts, in memory."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypedDict

from hallutrace.choices import EdgeDtype, Heads, HiddenDtype, HiddenStates, Rows, Switch
from hallutrace.config import ExtractConfig
from hallutrace.errors import InputError
from hallutrace.extraction.pipeline import walk
from hallutrace.progress import Reporter, Silent
from hallutrace.questions.in_memory import Messages, PromptList
from hallutrace.store.folder import Run
from hallutrace.store.reader import open_run
from hallutrace.store.trace import Trace

if TYPE_CHECKING:
    from typing_extensions import Unpack


class TraceOptions(TypedDict, total=False):
    """The fields of :class:`hallutrace.ExtractConfig` that :func:`trace` takes, and their types."""

    response_eos: Switch
    chat_template_kwargs: Mapping[str, Any]
    template_date: str | None
    stop: Sequence[str]
    max_new_tokens: int
    num_beams: int
    temperature: float
    top_p: float | None
    top_k_sampling: int | None
    min_p: float | None
    samples: int
    seed: int
    batch_size: int | Literal["auto"]
    top_k: int | None
    min_weight: float
    top_mass: float | None
    heads: Heads
    edge_rows: Rows
    edge_dtype: EdgeDtype
    marginal_rows: Rows
    alternatives: int
    hidden_states: HiddenStates
    hidden_layers: str | Sequence[int]
    hidden_dtype: HiddenDtype


def trace(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[str | Messages],
    responses: Sequence[str | Sequence[int]] | None = None,
    *,
    chat: bool = False,
    reporter: Reporter | None = None,
    **options: Unpack[TraceOptions],
) -> list[Trace]:
    r"""Traces the answers of a model to prompts, in memory.

    The traces are bit-identical to those of a run with the same prompts and settings. The model is
    left unchanged, also after an error: training mode, attention implementation, generation
    configuration, hooks, random number generators. Arrays are views of a temporary file that is
    removed with the traces.

    Args:
        model: a causal language model of transformers, or a ``PeftModel`` of one, whose adapters
            stay active.
        tokenizer: the tokenizer of ``model``.
        prompts: texts, tokenised by ``tokenizer(text)``; or conversations, each a list of messages
            with ``role`` and ``content``, formatted by the chat template.
        responses: one answer per prompt, as text or token ids. None generates the answers.
        chat: whether to format each text with the chat template, as the message of a user.
        reporter: receives progress and notes; the default discards them.
        options: fields of :class:`hallutrace.ExtractConfig`, with the same defaults.

    Returns:
        The traces in the order of the prompts; ``samples=k`` gives k consecutive traces per prompt.

    Raises:
        InputError: an option or prompt is invalid, or a prompt failed.
        ModelError: ``model`` is of another type or cannot be captured.

    Examples:
        >>> from transformers import AutoModelForCausalLM, AutoTokenizer
        >>> from hallutrace.demo import MODEL_FOLDER
        >>> model = AutoModelForCausalLM.from_pretrained(MODEL_FOLDER)
        >>> tokenizer = AutoTokenizer.from_pretrained(MODEL_FOLDER)
        >>> prompts = ["Question: Where was Ada Berg born?\nAnswer:"]
        >>> trace = hallutrace.trace(model, tokenizer, prompts, [" Oslo"])[0]
        >>> trace.answer, trace.logprob.shape, trace.layer(0).shape == (1, 23, 23)
        ('Oslo', (4,), True)
    """
    from hallutrace.model.objects import lent

    reporter = reporter or Silent()
    config = _config(options, chat=chat or _are_conversations(prompts))
    source = PromptList(prompts, responses)
    # Windows cannot remove memory-mapped files before the process ends.
    with tempfile.TemporaryDirectory(prefix="hallutrace-", ignore_cleanup_errors=True) as folder:
        run = Run(Path(folder) / "run")
        with lent(model, tokenizer, reporter.note, identify=False) as loaded:
            try:
                walk(config, source, run, loaded, reporter)
            except InputError as error:
                _check_all(run, source.total, error)
                raise
        _check_all(run, source.total)
        with open_run(run.folder) as store:
            return [Trace(trace.shard, trace.position, trace.manifest) for trace in store]


def _config(options: Mapping[str, Any], chat: bool) -> ExtractConfig:
    unknown = sorted(options.keys() - TraceOptions.__annotations__.keys())
    if unknown:
        raise InputError(
            f"Expected options of `trace` ({', '.join(TraceOptions.__annotations__)}), got "
            f"{', '.join(unknown)} - leave out what it does not take"
        )
    fixed = {"prompt": "{question}", "chat": "on" if chat else "off"}
    return ExtractConfig.from_options({**options, **fixed})


def _are_conversations(prompts: Sequence[str | Messages]) -> bool:
    """Whether the prompts are conversations.

    Raises:
        InputError: the prompts mix texts and conversations.
    """
    kinds = {isinstance(prompt, str) for prompt in prompts}
    if len(kinds) == 2:
        raise InputError(
            "Expected `prompts` that are all texts or all lists of messages, got both - write "
            "each text as [{'role': 'user', 'content': text}]"
        )
    return kinds == {False}


def _check_all(run: Run, count: int, error: InputError | None = None) -> None:
    """Raises an :class:`InputError` if any prompt failed."""
    failures = run.failures.read() if run.exists() else []
    if failures:
        first = min(failures, key=lambda failure: failure.index)
        raise InputError(
            f"Expected {count} prompts that can be traced, got {len(failures)} that failed, the "
            f"first of them `prompts[{first.index}]`: {first.error}"
        ) from error
