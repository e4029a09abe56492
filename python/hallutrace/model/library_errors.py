"""What other libraries raise and log, made a line for the user."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from hallutrace.errors import HallutraceError, MissingExtraError, ModelError
from hallutrace.model.free_memory import is_out_of_memory

LONGEST = 600  # characters of a message that are kept


@contextmanager
def loading(name: str, device: str = "cpu") -> Iterator[None]:
    """Within it, what a library raises becomes an error of ours that keeps what it says.

    Args:
        name: of the model, as asked for.
        device: where it goes.

    Raises:
        ModelError: whatever a library raised.
        MissingExtraError: a package that is not installed.
    """
    try:
        with heard("transformers") as reports:
            yield
    except HallutraceError:
        raise
    except BaseException as error:
        if not is_of_library(error):
            raise
        raise _error_of(name, device, error, reports) from None


def is_of_library(error: BaseException) -> bool:
    """Whether an error is one that a library meant to be handled.

    Extensions in Rust, as tokenizers is, raise a panic as a ``BaseException``.
    """
    return isinstance(error, Exception) or type(error).__name__ == "PanicException"


def essence(error: BaseException | str, longest: int = LONGEST) -> str:
    """A message on one line; a long one loses its middle, for its end often has the fix."""
    text = " ".join(str(error).split())
    if len(text) <= longest:
        return text
    begin = longest * 2 // 5
    return f"{text[:begin]} ... {text[-(longest - begin - 5) :]}"


@contextmanager
def heard(name: str) -> Iterator[list[str]]:
    """Collects what a logger and those below it are told meanwhile, from warnings on."""
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
    name: str, device: str, error: BaseException, reports: list[str]
) -> ModelError | MissingExtraError:
    text = essence(error)
    if isinstance(error, ValueError) and "trust_remote_code=True" in str(error):
        return ModelError(
            f"Expected a model whose code is part of transformers, got {name!r} with code of its "
            "own - read that code, and run it with --trust-remote-code if you trust it"
        )
    if isinstance(error, ImportError) and ("install" in text or "No module named" in text):
        if "bitsandbytes" in text:
            return MissingExtraError.of("bitsandbytes", "quantization", f"the checkpoint {name}")
        return MissingExtraError(
            f"Expected the packages that {name!r} needs, got: {text} - install what it names"
        )
    if is_out_of_memory(error):
        return ModelError(
            f"Expected enough memory for {name!r} on {device}, got: {text} - try --quantization "
            "int8 or nf4, --dtype bfloat16, --device-map auto, or a smaller model"
        )
    if "above report" in text and reports:
        # The report was logged, and told nobody.
        text = f"{text} {essence(reports[-1])}"
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
