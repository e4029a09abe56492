"""Converts errors and log messages of other libraries to one-line errors for the user."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from hallutrace.errors import HallutraceError, MissingExtraError, ModelError
from hallutrace.model.free_memory import is_out_of_memory
from hallutrace.option_names import parameter

MAX_CHARACTERS = 600  # of a library's message in an error


@contextmanager
def loading(name: str, device: str = "cpu") -> Iterator[None]:
    """A context that converts errors of libraries, with their message, to errors of this package.

    Args:
        name: the model's name, for the error message.
        device: the device to load it on, for the error message.

    Raises:
        ModelError: a library raised an error.
        MissingExtraError: a package is not installed.
    """
    try:
        with collected_warnings("transformers") as messages:
            yield
    except HallutraceError:
        raise
    except BaseException as error:
        if not is_of_library(error):
            raise
        raise _error_of(name, device, error, messages) from None


def is_of_library(error: BaseException) -> bool:
    """Whether an error is an ``Exception`` or a panic of a Rust extension.

    Extensions in Rust, such as tokenizers, raise a panic as a ``BaseException``.
    """
    return isinstance(error, Exception) or type(error).__name__ == "PanicException"


def essence(error: BaseException | str, max_characters: int = MAX_CHARACTERS) -> str:
    """A message on one line; of a long one the middle is cut, since the end often has the fix.

    Examples:
        >>> essence("a long message: fix it", max_characters=17)
        'a long ... fix it'
    """
    text = " ".join(str(error).split())
    if len(text) <= max_characters:
        return text
    begin = max_characters * 2 // 5
    return f"{text[:begin]} ... {text[-(max_characters - begin - 5) :]}"


@contextmanager
def collected_warnings(name: str) -> Iterator[list[str]]:
    """A context that collects warnings and errors logged to a logger and its children."""
    logger = logging.getLogger(name)
    handler = _Collector()
    logger.addHandler(handler)
    try:
        yield handler.messages
    finally:
        logger.removeHandler(handler)


class _Collector(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


def _error_of(
    name: str, device: str, error: BaseException, messages: list[str]
) -> ModelError | MissingExtraError:
    text = essence(error)
    if isinstance(error, ValueError) and "trust_remote_code=True" in str(error):
        return ModelError(
            f"Expected a model whose code is part of transformers, got {name!r} with code of its "
            f"own - read that code, and run it with {parameter('trust_remote_code', True)} if you "
            "trust it"
        )
    if isinstance(error, ImportError) and ("install" in text or "No module named" in text):
        if "bitsandbytes" in text:
            return MissingExtraError.of("bitsandbytes", "quantization", f"the checkpoint {name}")
        return MissingExtraError(
            f"Expected the packages that {name!r} needs, got: {text} - install what it names"
        )
    if is_out_of_memory(error):
        return ModelError(
            f"Expected enough memory for {name!r} on {device}, got: {text} - try "
            f"{parameter('quantization', 'int8')} or nf4, {parameter('dtype', 'bfloat16')}, "
            f"{parameter('device_map', 'auto')}, or a smaller model"
        )
    if "above report" in text and messages:
        # The report is only in the log, which the user does not see.
        text = f"{text} {essence(messages[-1])}"
    is_of_files = isinstance(error, OSError) or type(error).__module__.startswith("huggingface_hub")
    fix = (
        "check the name or folder, the network, and `hf auth login` for gated models"
        if is_of_files
        else "fix what it names, or choose another model"
    )
    return ModelError(
        f"Expected a causal language model that transformers loads, got {type(error).__name__} for "
        f"{name!r} ({text}) - {fix}"
    )
