"""Records the environment of a shard, because the last bits of its traces depend on it."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from typing import Any

import torch

from hallutrace.cpu_threads import available_cpus
from hallutrace.package_versions import versions_of
from hallutrace.store.folder import CommitRecord

PACKAGES = ("hallutrace", "torch", "transformers", "numpy", "bitsandbytes")


def environment(device: torch.device) -> dict[str, Any]:
    """Package versions, platform, device and thread counts.

    Args:
        device: the device of the model.

    Returns:
        A dictionary of values that JSON can hold.

    Examples:
        >>> environment(torch.device("cpu"))["device"]
        'cpu (...)'
    """
    found: dict[str, Any] = versions_of(*PACKAGES)
    found["platform"] = f"{platform.system()}-{platform.machine()}"
    found["device"] = (
        torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else f"cpu ({torch.backends.cpu.get_cpu_capability()})"
    )
    found["threads"] = torch.get_num_threads()
    found["cpus"] = available_cpus()
    return found


def changes(here: dict[str, Any], records: Sequence[CommitRecord]) -> str:
    """A warning if shards were written in another environment.

    Args:
        here: the environment of this process.
        records: commit records of the run.

    Returns:
        The warning, with the differences from the last such environment; empty if there is none.

    Examples:
        >>> changes({"torch": "2.9.0"}, [])
        ''
    """
    recorded = (record.environment for record in reversed(records))
    there = next((found for found in recorded if found != here), here)
    changed = [
        f"{name}: {there.get(name)} -> {here.get(name)}"
        for name in sorted({*there, *here})
        if there.get(name) != here.get(name)
    ]
    if not changed:
        return ""
    return (
        "Warning: shards of this run were made in another environment, so the last bits "
        f"may differ ({'; '.join(changed)})"
    )
