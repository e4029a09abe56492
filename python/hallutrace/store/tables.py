"""Tables of runs for Arrow and pandas: one row per trace with its text, labels and scalars.

=====================  ==================  =========================================================
column                 Arrow (pandas)      meaning
=====================  ==================  =========================================================
``id``                 string              of the question
``sample``             int32               which answer of its question, from 0
``group``              string              traces of a group are in the same part of a split
``index``              int64               row of the question in its source, from 0
``question``           string              the question
``context``            string, may be null the context
``prompt``             string              input text of the model
``answer``             string              text that the model generated, or a given answer
``references``         list of strings     correct answers
``finish_reason``      string              ``eos``, ``stop``, ``length`` or ``given``
``prompt_tokens``      int32               tokens of the prompt
``answer_tokens``      int32               tokens of the answer, end-of-sequence included
``mean_logprob``       float64             mean log-probability of the answer's tokens, nats
``min_logprob``        float64             the smallest of them
``sum_logprob``        float64             the sum of them
``mean_token_entropy`` float64             mean entropy of the distributions of these tokens, nats
``max_token_entropy``  float64             the largest of them
``label.NAME``         int8 (Int8), null   by the protocol NAME: 1 hallucinated, 0 right, or null
``score.NAME``         float64, null       its score, higher means more likely right
=====================  ==================  =========================================================
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hallutrace.errors import MissingExtraError
from hallutrace.store.label_files import names, read_rows
from hallutrace.store.trace import Trace

if TYPE_CHECKING:
    import pandas
    import pyarrow

TEXT = ("id", "group", "question", "context", "prompt", "answer", "finish_reason")
SCALARS: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "mean_logprob": ("logprob", np.mean),
    "min_logprob": ("logprob", np.min),
    "sum_logprob": ("logprob", np.sum),
    "mean_token_entropy": ("token_entropy", np.mean),
    "max_token_entropy": ("token_entropy", np.max),
}


def to_arrow(traces: Iterable[Trace], folder: Path) -> pyarrow.Table:
    """Builds an Arrow table of the traces of a run.

    Args:
        traces: of the run.
        folder: of the run, for its labels.

    Returns:
        One row per trace, with the columns above.

    Raises:
        MissingExtraError: pyarrow is not installed.
        DamagedError: a trace or a label file is damaged.
    """
    if importlib.util.find_spec("pyarrow") is None:
        raise MissingExtraError.of("pyarrow", "tables", "tables of a run")
    import pyarrow

    labels = {name: read_rows(folder, name) for name in names(folder)}
    kinds = {
        "id": pyarrow.string(),
        "sample": pyarrow.int32(),
        "group": pyarrow.string(),
        "index": pyarrow.int64(),
        **dict.fromkeys(("question", "context", "prompt", "answer"), pyarrow.string()),
        "references": pyarrow.list_(pyarrow.string()),
        "finish_reason": pyarrow.string(),
        **dict.fromkeys(("prompt_tokens", "answer_tokens"), pyarrow.int32()),
        **dict.fromkeys(SCALARS, pyarrow.float64()),
        **{f"label.{name}": pyarrow.int8() for name in labels},
        **{f"score.{name}": pyarrow.float64() for name in labels},
    }
    columns: dict[str, list[Any]] = {name: [] for name in kinds}
    for trace in traces:
        for name, value in _row(trace, labels).items():
            columns[name].append(value)
    return pyarrow.table({name: pyarrow.array(columns[name], kind) for name, kind in kinds.items()})


def to_pandas(traces: Iterable[Trace], folder: Path) -> pandas.DataFrame:
    """Builds the table of :func:`to_arrow` as a pandas data frame; labels are ``Int8``.

    Args:
        traces: of the run.
        folder: of the run, for its labels.

    Raises:
        MissingExtraError: pandas or pyarrow is not installed.
        DamagedError: a trace or a label file is damaged.
    """
    if importlib.util.find_spec("pandas") is None:
        raise MissingExtraError.of("pandas", "tables", "data frames of a run")
    table = to_arrow(traces, folder)
    import pandas
    import pyarrow

    return table.to_pandas(types_mapper={pyarrow.int8(): pandas.Int8Dtype()}.get)


def _row(trace: Trace, labels: Mapping[str, Mapping[tuple[str, int], Any]]) -> dict[str, Any]:
    """Values of one trace by name of the column."""
    row = {name: getattr(trace, name) for name in (*TEXT, "sample", "index", "references")}
    row["prompt_tokens"] = trace.prompt_length
    row["answer_tokens"] = len(trace.answer_tokens)
    for name, (field, combine) in SCALARS.items():
        row[name] = float(combine(getattr(trace, field).astype(np.float64)))
    for name, rows in labels.items():
        label = rows.get((trace.id, trace.sample))
        row[f"label.{name}"] = None if label is None else label.label
        row[f"score.{name}"] = None if label is None else label.score
    return row
