"""A run as a table of Arrow and of pandas: its columns, their types, its labels."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hallutrace
from conftest import Extract
from hallutrace.errors import MissingExtraError
from hallutrace.store import tables

pytest.importorskip("pyarrow")
pytest.importorskip("pandas")

KINDS = {
    "id": "string",
    "sample": "int32",
    "group": "string",
    "index": "int64",
    "question": "string",
    "context": "string",
    "prompt": "string",
    "answer": "string",
    "references": "list<",
    "finish_reason": "string",
    "prompt_tokens": "int32",
    "answer_tokens": "int32",
    "mean_logprob": "double",
    "min_logprob": "double",
    "sum_logprob": "double",
    "mean_token_entropy": "double",
    "max_token_entropy": "double",
    "label.judge": "int8",
    "label.mine": "int8",
    "score.judge": "double",
    "score.mine": "double",
}


@pytest.fixture
def folder(run_extract: Extract) -> Path:
    """Seven traces, with two protocols of labels: one for all of them, one for some."""
    folder: Path = run_extract().folder
    judged = [
        {"id": f"q{at}", "sample": 0, "label": (1, 0, None)[at % 3], "score": at / 7}
        for at in range(7)
    ]
    mine = [{"id": "q3", "sample": 0, "label": 1, "score": None}]
    for name, rows in (("judge", judged), ("mine", mine)):
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / "labels" / f"{name}.jsonl").write_text(lines)
    return folder


def test_a_table_has_the_documented_columns(folder: Path) -> None:
    store = hallutrace.open(folder)
    table = store.to_arrow()
    assert table.column_names == list(KINDS)
    for name, kind in KINDS.items():
        assert str(table.schema.field(name).type).startswith(kind), name
        documented = name if "." not in name else name.partition(".")[0] + ".NAME"
        assert f"``{documented}``" in str(tables.__doc__)
    assert table.num_rows == len(store) == 7
    for trace, row in zip(store, table.to_pylist(), strict=True):
        assert (row["id"], row["sample"], row["index"]) == (trace.id, 0, trace.index)
        assert (row["question"], row["answer"]) == (trace.question, trace.answer)
        assert (row["context"], row["references"]) == (None, ["an"])
        assert row["prompt_tokens"] + row["answer_tokens"] == len(trace.tokens)
        logprob = trace.logprob.astype(np.float64)
        assert row["sum_logprob"] == pytest.approx(logprob.sum(), rel=1e-12)
        assert row["mean_logprob"] == pytest.approx(logprob.sum() / len(logprob), rel=1e-12)
        assert row["min_logprob"] == logprob.min()
        assert row["max_token_entropy"] == trace.token_entropy.max()


def test_labels_are_columns_that_may_be_empty(folder: Path) -> None:
    frame = hallutrace.open(folder).to_pandas()
    assert str(frame["label.judge"].dtype) == str(frame["label.mine"].dtype) == "Int8"
    assert frame["label.judge"].isna().tolist() == [at % 3 == 2 for at in range(7)]
    assert frame["label.judge"].sum() == 3
    assert frame["label.mine"].dropna().tolist() == [1]
    assert frame["score.judge"].tolist() == [at / 7 for at in range(7)]
    assert frame["score.mine"].isna().all()
    assert frame["mean_logprob"].dtype == np.float64
    assert frame["answer_tokens"].dtype == np.int32
    assert frame.groupby("label.judge")["mean_logprob"].mean().shape == (2,)


@pytest.mark.parametrize("package", ["pyarrow", "pandas"])
def test_without_the_packages_the_extra_is_named(
    package: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec

    def hidden(name: str, *rest: Any) -> Any:
        return None if name == package else find(name, *rest)

    monkeypatch.setattr(importlib.util, "find_spec", hidden)
    with pytest.raises(MissingExtraError, match=rf'`{package}` .*"hallutrace\[tables\]"'):
        hallutrace.open(folder).to_pandas()
