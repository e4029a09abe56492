"""The environment of a shard: versions, device and threads, on which its last bits depend."""

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
    """Versions, device and threads, as JSON."""
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
    """A warning where shards were made in another environment than this one; else empty."""
    others = (record.environment for record in reversed(records))
    there = next((other for other in others if other != here), here)
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
