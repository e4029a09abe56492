"""Rows from an Apache Parquet file, read batch by batch."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

from hallutrace.errors import MissingExtraError
from hallutrace.questions.cell_values import name_list, shortened
from hallutrace.questions.class_labels import class_names, with_class_names
from hallutrace.questions.rows import MismatchError, RawRow


class Parquet:
    """A Parquet file; of one that `datasets` wrote, classes are read by their names."""

    BATCH = 256

    def __init__(self, path: Path) -> None:
        try:
            import pyarrow.parquet
        except ImportError as error:
            raise MissingExtraError.of("pyarrow", "data", "questions in Parquet") from error
        self.path, self.location, self._parquet = path, path.name, pyarrow.parquet

    @cached_property
    def total(self) -> int | None:
        """Number of rows, from the footer."""
        with self._open() as file:
            return int(file.metadata.num_rows)

    def rows(self, columns: Collection[str] | None = None) -> Iterator[RawRow]:
        """All rows in order."""
        index = 0
        with self._open() as file:
            schema = file.schema_arrow
            self._check_names(schema.names)
            classes = class_names(features_of(schema.metadata or {}))
            # Other columns, such as whole articles, stay on the disk.
            names = [n for n in schema.names if columns is None or n in columns]
            batches = file.iter_batches(batch_size=self.BATCH, columns=names)
            while (batch := self._read(lambda: next(batches, None))) is not None:
                for values in rows_of(batch):
                    yield RawRow(index, None, with_class_names(values, classes))
                    index += 1

    def _check_names(self, names: list[str]) -> None:
        twice = [name for name in dict.fromkeys(names) if names.count(name) > 1]
        if twice:
            raise MismatchError(
                "each column once", f"{name_list(twice)} more than once", "rename the columns"
            ).at(self.location)

    def _open(self) -> Any:
        return self._read(lambda: self._parquet.ParquetFile(self.path))

    def _read(self, step: Callable[[], Any]) -> Any:
        try:
            return step()
        # pyarrow's errors are OSError or ValueError, of kinds that differ between versions.
        except (OSError, ValueError) as error:
            raise MismatchError(
                "an Apache Parquet file",
                f"what cannot be read as one ({shortened(str(error), 120)})",
                "check that the file is whole",
            ).at(self.location) from error


def features_of(metadata: dict[bytes, bytes]) -> dict[str, Any]:
    """The features that `datasets` has written into a file; nothing where it was not the writer."""
    with suppress(ValueError, KeyError, TypeError):
        features = json.loads(metadata[b"huggingface"])["info"]["features"]
        return features if isinstance(features, dict) else {}
    return {}


def rows_of(batch: Any) -> Iterator[dict[str, object] | MismatchError]:
    """Each row of a record batch; text that is no UTF-8 costs its own row alone."""
    try:
        yield from batch.to_pylist()
    except UnicodeDecodeError:
        for position in range(batch.num_rows):
            try:
                yield from batch.slice(position, 1).to_pylist()
            except UnicodeDecodeError:
                yield MismatchError(
                    "text in UTF-8", "bytes that are not UTF-8", "fix or remove the row"
                )
