"""Where a shard was made: what its last bits may depend on."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch


def environment(device: torch.device) -> dict[str, Any]:
    """Versions, device and threads, as JSON."""
    found: dict[str, Any] = {
        name: _version(name)
        for name in ("hallutrace", "torch", "transformers", "numpy", "bitsandbytes")
    }
    found["python"] = platform.python_version()
    found["platform"] = f"{platform.system()}-{platform.machine()}"
    found["device"] = (
        torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else f"cpu ({torch.backends.cpu.get_cpu_capability()})"
    )
    found["threads"] = torch.get_num_threads()
    found["cpus"] = os.cpu_count()
    return found


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
