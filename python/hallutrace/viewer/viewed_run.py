"""A run that is looked at, with what was made from it: labels, evaluations, detectors."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import starmap
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hallutrace.errors import NotInRunError
from hallutrace.option_names import parameter
from hallutrace.store import label_files
from hallutrace.store.reader import TraceStore
from hallutrace.store.trace import Trace
from hallutrace.viewer.data.head_tables import HeadTables
from hallutrace.viewer.evaluations.files import EvaluationFiles
from hallutrace.viewer.token_texts import TextsOf, texts_of

NO_LABEL = -1


@dataclass(frozen=True)
class ViewedRun:
    """A run, and the folders of what was made from it.

    Attributes:
        store: the run.
        evaluation: folder that ``hallutrace evaluate`` wrote; None if there is none to show.
        detector: folder of a saved detector whose scores are shown; None if there is none.

    Examples:
        >>> viewed = ViewedRun(hallutrace.open(run))
        >>> viewed.labels, viewed.label(None)
        (['contains'], 'contains')
    """

    store: TraceStore
    evaluation: Path | None = None
    detector: Path | None = None

    @cached_property
    def labels(self) -> list[str]:
        """Names of the protocols that the run has labels of."""
        return self.store.labels()

    def label(self, name: str | None) -> str:
        """The protocol to show: the one that is asked for, else the evaluation's, else the first.

        Args:
            name: of a protocol.

        Raises:
            NotInRunError: the run has no such labels.
        """
        if name is None and self.evaluation is not None:
            name = self.evaluation_json["run"]["label"]["name"]
        if name is None and self.labels:
            name = self.labels[0]
        if name is None:
            raise NotInRunError(
                "This run has no labels: `hallutrace label RUN --by contains` makes them"
            )
        if name not in self.labels:
            raise NotInRunError(
                f"Expected one of the labels {', '.join(self.labels) or '(none)'}, got {name!r} - "
                "`hallutrace label` makes others"
            )
        return name

    def label_values(self, name: str | None) -> NDArray[np.int8]:
        """Labels of all traces in the order of the run: 1 hallucinated, 0 right, -1 neither.

        A file is read again only after it has changed.

        Args:
            name: of a protocol, see :meth:`label`.

        Returns:
            int8 [traces], read-only.

        Raises:
            NotInRunError: the run has no such labels.
            DamagedError: the file of the labels is damaged.
        """
        name = self.label(name)
        version = _version(label_files.path_of(self.store.folder, name))
        if self._read_labels.get(name, (None,))[0] != version:
            found = label_files.read(self.store.folder, name)
            values = map(found.get, self.store.keys())
            array = np.array([NO_LABEL if one is None else one for one in values], np.int8)
            array.flags.writeable = False
            self._read_labels[name] = (version, array)
        return self._read_labels[name][1]

    @cached_property
    def _read_labels(self) -> dict[str, tuple[tuple[int, int] | None, NDArray[np.int8]]]:
        return {}

    @cached_property
    def key_texts(self) -> list[str]:
        """The key of each trace as the page names it: the id; with ``#k`` for sample k > 0."""
        return [*starmap(key_text, self.store.keys())]

    @cached_property
    def _positions(self) -> dict[str, int]:
        return {text: position for position, text in enumerate(self.key_texts)}

    def position(self, key: str) -> int:
        """Position in the run of the trace with this key.

        Args:
            key: one of :attr:`key_texts`.

        Raises:
            NotInRunError: no such trace.
        """
        if key not in self._positions:
            first = f", such as {self.key_texts[0][:80]!r}" if self.key_texts else ""
            raise NotInRunError(f"Expected the key of a trace of this run{first}, got {key[:80]!r}")
        return self._positions[key]

    def trace(self, key: str) -> Trace:
        """The trace with this key, see :meth:`position`."""
        return self.store[self.position(key)]

    @cached_property
    def evaluation_files(self) -> EvaluationFiles:
        """The evaluation that is shown: figures, and the scores of traces.

        Raises:
            NotInRunError: no evaluation is shown, or its folder holds none.
            DamagedError: ``evaluation.json`` is damaged.
        """
        if self.evaluation is None:
            raise NotInRunError(
                "No evaluation is shown: `hallutrace evaluate RUN --label NAME` makes one; "
                f"give its folder with {parameter('evaluation')}"
            )
        return EvaluationFiles.read(self.evaluation)

    @property
    def evaluation_json(self) -> dict[str, Any]:
        """What ``evaluation.json`` holds, see :attr:`evaluation_files`."""
        return self.evaluation_files.json

    @cached_property
    def head_tables(self) -> HeadTables:
        """A figure for each head of each trace, kept while there is room."""
        return HeadTables(self.store)

    @cached_property
    def texts_of(self) -> TextsOf | None:
        """The text of tokens; None where the model's tokenizer cannot be had without a network."""
        return texts_of(self.store.manifest.identity["model"]["name"])


def _version(path: Path) -> tuple[int, int] | None:
    """When a file was changed, and its size; None if it is not there."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size


def key_text(id_: str, sample: int) -> str:
    """The key of a trace as one text.

    Examples:
        >>> key_text("q7", 0), key_text("q7", 2)
        ('q7', 'q7#2')
    """
    return f"{id_}#{sample}" if sample else id_
