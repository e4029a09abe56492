"""Devices: what ``auto`` takes, and what a model is there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from hallutrace import ExtractConfig
from hallutrace.errors import ModelError
from hallutrace.model import loading
from hallutrace.model.devices import computes_in_float32, resolve_device
from hallutrace.model.seeding import seeded


def fake(patch: pytest.MonkeyPatch, *, cuda: bool, mps: bool) -> None:
    """A machine with other devices."""
    patch.setattr(torch.cuda, "is_available", lambda: cuda)
    patch.setattr(torch.backends.mps, "is_available", lambda: mps)


@pytest.mark.parametrize(
    ("cuda", "mps", "device"),
    [(True, True, "cuda"), (True, False, "cuda"), (False, True, "mps"), (False, False, "cpu")],
)
def test_auto_is_the_first_there_is(
    cuda: bool, mps: bool, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake(monkeypatch, cuda=cuda, mps=mps)
    assert resolve_device("auto") == device
    assert computes_in_float32(device) == (device != "cuda")


@pytest.mark.parametrize(
    ("asked", "dtype"), [("auto", "float32"), ("float16", "float16"), ("bfloat16", "bfloat16")]
)
def test_weights_on_mps_are_float32_unless_asked(
    asked: Any, dtype: str, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake(monkeypatch, cuda=False, mps=True)
    seen: dict[str, Any] = {}

    def weights(_: Any, **options: Any) -> Any:
        seen.update(options)
        raise ModelError("enough is known")

    monkeypatch.setattr(loading, "load_weights", weights)
    with pytest.raises(ModelError, match="enough is known"):
        loading.load(ExtractConfig(model=str(checkpoint), dtype=asked))
    assert (seen["device"], seen["dtype"]) == ("mps", dtype)


def test_a_device_that_is_not_there_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    fake(monkeypatch, cuda=False, mps=False)
    with pytest.raises(ModelError, match="Expected a device that this build of torch can use"):
        resolve_device("mps")
    with pytest.raises(ModelError, match="such as cpu, cuda, cuda:1 or mps, got 'gpu'"):
        resolve_device("gpu")


def test_random_numbers_of_mps_go_on_after_sampling(monkeypatch: pytest.MonkeyPatch) -> None:
    state: list[Any] = ["before"]
    monkeypatch.setattr(torch.mps, "get_rng_state", lambda: state[0])
    monkeypatch.setattr(torch.mps, "set_rng_state", lambda given: state.__setitem__(0, given))
    before = torch.get_rng_state()
    with pytest.raises(ValueError, match="stop"), seeded(7, torch.device("mps")):
        state[0] = "seeded"
        raise ValueError("stop")
    assert state == ["before"]
    assert torch.equal(torch.get_rng_state(), before)
