"""Free memory of the devices of a model."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

# Files of a Linux control group (cgroup): its limit, its usage, and the field of memory.stat that
# counts the file cache within the usage. Version 2 first, then version 1.
GROUP_FILES = (
    ("memory.max", "memory.current", "inactive_file"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)


def release_cached_memory() -> None:
    """Frees the memory of GPUs that torch caches for later allocations."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def free_memory(devices: Collection[str]) -> int:
    """Bytes that a batch can allocate on the devices of a model.

    A model on several GPUs splits the memory of a batch among them, so the estimate is the number
    of GPUs times the smallest free memory. Main memory is ignored if there is a GPU. File cache
    counts as free, because the system reclaims it; after a large model was read, most of main
    memory is file cache.

    Args:
        devices: torch device names such as ``cpu`` or ``cuda:1``.

    Examples:
        >>> free_memory(["cpu"]) > 0
        True
    """
    gpus = sorted({device for device in devices if device.partition(":")[0] == "cuda"})
    if gpus:
        import torch

        return len(gpus) * min(int(torch.cuda.mem_get_info(device)[0]) for device in gpus)
    import psutil

    return min([int(psutil.virtual_memory().available), *_left_to_groups(Path("/"))])


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error reports that a GPU or the CPU is out of memory.

    Examples:
        >>> is_out_of_memory(RuntimeError("CUDA out of memory"))
        True
    """
    kinds = {kind.__name__ for kind in type(error).__mro__}
    if kinds & {"MemoryError", "OutOfMemoryError"}:
        return True
    text = str(error).lower()
    return any(
        phrase in text
        for phrase in ("out of memory", "not enough memory", "t allocate memory", "cannot allocate")
    )


def _left_to_groups(root: Path) -> Iterator[int]:
    """Bytes left to each control group of this process that has a memory limit."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            mount, files = "sys/fs/cgroup", GROUP_FILES[0]
        elif "memory" in controllers.split(","):
            mount, files = "sys/fs/cgroup/memory", GROUP_FILES[1]
        else:
            continue
        # Inside a container the path may be that of the host, of which only the root is mounted.
        group = Path(path.lstrip("/"))
        for part in (group, *group.parents):
            remaining = _remaining(root / mount / part, *files)
            if remaining is not None:
                yield remaining


def _remaining(group: Path, limit: str, usage: str, file_cache: str) -> int | None:
    """Bytes that a control group may still allocate; None if it has no limit."""
    try:
        limit_text = (group / limit).read_text().strip()
        if limit_text == "max":
            return None
        used = int((group / usage).read_text())
        counts = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        return max(0, int(limit_text) - used + int(counts.get(file_cache, 0)))
    except (OSError, ValueError):
        return None
