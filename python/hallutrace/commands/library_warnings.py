"""Log messages and warnings of other libraries while a command runs, each printed once."""

from __future__ import annotations

import logging
import sys
import warnings
from typing import TextIO

from rich.console import Console

from hallutrace.commands.console import ERR, styled
from hallutrace.model.library_errors import essence

LONGEST = 300  # characters of a line
# For developers of libraries, not for users of hallutrace.
HIDDEN = (DeprecationWarning, PendingDeprecationWarning, FutureWarning, ResourceWarning)
NOISE = (
    "LOAD REPORT",  # hallutrace.model.weights says what is in it
    "Found missing adapter keys",  # as above
    "is deprecated",
    # Every field of generation is set, whatever a checkpoint's own configuration says.
    "generation flags are not valid",
    # How int8 of bitsandbytes computes, logged at every matrix product.
    "inputs will be cast from",
    # Faster code that could be downloaded.
    "kernels-community",
)


class LibraryNotes(logging.Handler):
    """Prints warnings of libraries, each once.

    Args:
        console: where to.
    """

    def __init__(self, console: Console) -> None:
        super().__init__(logging.WARNING)
        self._console = console
        self._said: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        """Prints a record, unless it is noise or was printed before."""
        self.say(record.name.partition(".")[0], record.getMessage())

    def warn(
        self,
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        """Replaces ``warnings.showwarning``."""
        if not issubclass(category, HIDDEN):
            self.say(category.__name__, str(message))

    def say(self, source: str, message: str) -> None:
        """Prints a message that was not printed before."""
        text = essence("".join(one if one.isprintable() else " " for one in message), LONGEST)
        if text in self._said or any(noise in text for noise in NOISE):
            return
        self._said.add(text)
        self._console.print(styled((f"{source}: {text}", "dim")))


def quiet_libraries(is_small: bool) -> None:
    """Keeps other libraries from printing over the progress bar; warnings become lines."""
    show_through(ERR, is_small)


def show_through(console: Console, is_small: bool) -> None:
    """Sends messages of libraries to a console only: no bars of their own, no line twice.

    Args:
        console: where their warnings go.
        is_small: whether nothing is downloaded, so that no bar of the hub is needed either.
    """
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled, enable_progress_bars
    from transformers.utils import logging as transformers_logging

    with warnings.catch_warnings():
        # The hub's library warns where a variable of the environment decides about its bars.
        warnings.simplefilter("ignore")
        downloads = not is_small and sys.stderr.isatty() and not are_progress_bars_disabled()
        transformers_logging.disable_progress_bar()
        if downloads:
            enable_progress_bars()  # the line above took those of downloads away too
    transformers_logging.disable_default_handler()
    transformers_logging.set_verbosity_warning()
    notes = LibraryNotes(console)
    for logger in (logging.getLogger(), logging.getLogger("transformers")):
        for handler in [one for one in logger.handlers if isinstance(one, LibraryNotes)]:
            logger.removeHandler(handler)
        logger.addHandler(notes)
    warnings.showwarning = notes.warn
