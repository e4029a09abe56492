"""Rows from a data set on the Hugging Face hub, or from a folder in its layout, streamed."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from hallutrace.errors import MissingExtraError
from hallutrace.option_names import parameter
from hallutrace.questions.cell_values import shortened
from hallutrace.questions.class_labels import class_names, with_class_names
from hallutrace.questions.rows import MismatchError, RawRow
from hallutrace.retry import Retry

HUB_PREFIX = "hf:"
FORMS = "hf:OWNER/NAME/CONFIG/SPLIT, hf:OWNER/NAME/SPLIT or hf:/FOLDER/CONFIG/SPLIT"


def parse_spec(spec: str) -> tuple[str, str | None, str]:
    """Splits a spec into its parts.

    Four parts are owner, name, configuration and split; three are owner, name and split, for a
    data set with one configuration: every data set on the hub has an owner today, so three
    never mean name, configuration and split. A path (one that begins with `/`, `.` or `~`, or
    has more parts) is a folder, its configuration (`default` unless it declares others) and split.

    Args:
        spec: as given, with `hf:` before it.

    Returns:
        Repository or folder, configuration (None: the only one), split.

    Raises:
        InputError: anything else.

    Examples:
        >>> parse_spec("hf:mandarjoshi/trivia_qa/rc.nocontext/train")
        ('mandarjoshi/trivia_qa', 'rc.nocontext', 'train')
    """
    text = spec.removeprefix(HUB_PREFIX)
    parts = text.split("/")
    path = text.startswith(("/", ".", "~")) or len(parts) > 4
    whole = all(part.strip() for part in parts[1:]) and (path or parts[0].strip())
    if whole and len(parts) >= 4:
        folder = "/".join(parts[:-2])
        return str(Path(folder).expanduser()) if path else folder, parts[-2], parts[-1]
    if whole and len(parts) == 3 and not path:
        return "/".join(parts[:2]), None, parts[2]
    fix = "give all parts, as in hf:mandarjoshi/trivia_qa/rc.nocontext/train"
    raise MismatchError(FORMS, f"`{spec}`", fix).at(parameter("questions"))


class HubReader:
    """A split of a data set, opened once and streamed on every pass.

    Args:
        spec: as :func:`parse_spec` takes it.
        retry: after temporary errors; a stream that breaks is opened again at the next row.
    """

    def __init__(self, spec: str, retry: Retry | None = None) -> None:
        self.location = spec
        self._retry = retry or Retry()
        self.repository, self.configuration, self.split = parse_spec(spec)
        self._data = self._load()

    @property
    def total(self) -> int | None:
        """Number of rows, where the data set's own description has it."""
        split = (self._data.info.splits or {}).get(self.split)
        return getattr(split, "num_examples", None) or None

    def rows(self, columns: Collection[str] | None = None) -> Iterator[RawRow]:
        """All rows in order."""
        data = self._data
        if columns is not None and data.column_names is not None:
            # Contexts of megabytes that are not needed are not decoded.
            data = data.select_columns([name for name in data.column_names if name in columns])
        features = getattr(data, "features", None)
        classes = class_names(features.to_dict() if features else {})
        stream = _Stream(data)
        while (values := self._next(stream)) is not None:
            yield RawRow(stream.index - 1, None, with_class_names(values, classes))

    def _next(self, stream: _Stream) -> dict[str, object] | None:
        index = stream.index
        try:
            return self._retry.call(stream.next, f"Reading row {index} of {self.location}")
        # Whatever the network, the file system or a decoder raises ends the stream.
        except Exception as error:
            raise MismatchError(
                f"row {index} of the data set",
                f"{type(error).__name__}: {first_line(error)}",
                "check the network and run the same command again",
            ).at(self.location) from error

    def _load(self) -> Any:
        try:
            import datasets
        except ImportError as error:
            raise MissingExtraError.of("datasets", "data", "questions from the hub") from error

        def load() -> Any:
            return datasets.load_dataset(
                self.repository, self.configuration, split=self.split, streaming=True
            )

        try:
            return self._retry.call(load, f"Opening {self.location}")
        # Unknown, gated or without network: datasets raises anything from OSError to ValueError.
        except Exception as error:
            asked = (
                f"the split `{self.split}` of "
                + (f"the configuration `{self.configuration}` of " if self.configuration else "")
                + f"the data set `{self.repository}`"
            )
            raise MismatchError(
                asked, f"{type(error).__name__}: {first_line(error)}", hint(error, self)
            ).at(parameter("questions", self.location)) from error


class _Stream:
    """One pass over a data set, which can go on where it broke."""

    def __init__(self, data: Any) -> None:
        self.index = 0
        self._data = data
        self._rows: Iterator[dict[str, object]] | None = None

    def next(self) -> dict[str, object] | None:
        """The next row, None after the last."""
        if self._rows is None:
            self._rows = iter(self._data.skip(self.index) if self.index else self._data)
        try:
            row = next(self._rows, None)
        except BaseException:
            # An iterator that raised is over: without this the next attempt would find no rows.
            self._rows = None
            raise
        self.index += row is not None
        return row


def first_line(error: BaseException) -> str:
    """The beginning of an error's message, on one line."""
    return shortened(" ".join(str(error).split()), 300)


def hint(error: Exception, hub: HubReader) -> str:
    """How to fix a failure to open."""
    names = {kind.__name__ for kind in type(error).__mro__}
    if "gated" in str(error).lower():
        return "accept its terms on the hub, then log in with `hf auth login`"
    if "DatasetNotFoundError" in names:
        return f"check the name (the forms are {FORMS}); for a private one `hf auth login`"
    if "ConnectionError" in names or "TimeoutError" in names or "TransportError" in names:
        return "check the network, or put the data set into a .jsonl or .parquet file"
    return f"check configuration and split (the forms are {FORMS})"
