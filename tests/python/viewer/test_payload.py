"""Payloads: what goes in comes out, in Python and in the page."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from hallutrace.viewer.page import page
from hallutrace.viewer.payload import pack, unpack

ARRAYS = arrays.arrays(
    st.sampled_from([np.float16, np.float32, np.float64, np.int8, np.int32, np.uint16, np.bool_]),
    arrays.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=5),
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(ARRAYS, max_size=4), st.text())
def test_arrays_and_text_come_back(given_arrays: list[np.ndarray], text: str) -> None:
    found = unpack(pack({"arrays": given_arrays, "text": text}))
    for one, other in zip(given_arrays, found["arrays"], strict=True):
        np.testing.assert_array_equal(one, other)
        assert other.dtype == one.dtype
    assert found["text"] == text.encode("utf-8", "replace").decode()


def test_no_number_is_null() -> None:
    assert unpack(pack([float("nan"), float("inf"), np.float32(1.5)])) == [None, None, 1.5]


def test_what_a_page_cannot_read_is_refused() -> None:
    with pytest.raises(OverflowError, match="32 bits"):
        pack(np.array([1 << 40]))
    with pytest.raises(TypeError, match="complex128"):
        pack(np.array([1j]))


def test_the_page_reads_the_same(browser: Any, tmp_path: Any, opened: Any) -> None:
    halves = np.arange(65536, dtype=np.uint16).view(np.float16)
    value = {
        "half": halves,
        "int": np.arange(6, dtype=np.int32).reshape(2, 3),
        "text": "</script>é",
    }
    file = tmp_path / "page.html"
    file.write_text("".join(page({"title": "t"}, [("x?a=1", pack(value))])), "utf-8")
    opened_page = opened(file).page
    found = opened_page.evaluate(
        """async () => {
          const source = new hallutrace["source.js"].EmbeddedSource();
          const value = await source.get("x", {a: 1});
          const {half, int, text} = value;
          return {half: [...half].map(String), int: [...int], shape: int.shape, text};
        }"""
    )
    assert found["int"] == list(range(6)) and found["shape"] == [2, 3]
    assert found["text"] == "</script>é"
    read = np.array([float(one.replace("Infinity", "inf")) for one in found["half"]], np.float32)
    np.testing.assert_array_equal(read, halves.astype(np.float32))
