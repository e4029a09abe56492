"""Memory that is free where a model runs."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

# Of a control group of Linux: its limit, what it uses, and the line of memory.stat that counts what
# of that is only a copy of files. First of version 2, then of version 1.
GROUP_FILES = (
    ("memory.max", "memory.current", "inactive_file"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)


def release_cached_memory() -> None:
    """Gives back what torch keeps of a GPU's memory for later."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def free_memory(devices: Collection[str]) -> int:
    """Bytes that are free on the devices of a model, or that the system would give.

    A model that is spread over several devices leaves a part of what grows with a batch on each:
    as many times as there are devices, what is free on the fullest. Main memory is left out where
    there is a GPU beside it. What only caches files counts as free, as it does for the system
    itself: on a machine that has read a large model there is little else.

    Args:
        devices: such as ``cpu``, ``cuda:1``.
    """
    gpus = sorted({device for device in devices if device.partition(":")[0] == "cuda"})
    if gpus:
        import torch

        return len(gpus) * min(int(torch.cuda.mem_get_info(device)[0]) for device in gpus)
    import psutil

    return min([int(psutil.virtual_memory().available), *_left_to_groups(Path("/"))])


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that a GPU or the CPU's allocator had no more memory."""
    kinds = {kind.__name__ for kind in type(error).__mro__}
    if kinds & {"MemoryError", "OutOfMemoryError"}:
        return True
    text = str(error).lower()
    return any(
        said in text
        for said in ("out of memory", "not enough memory", "t allocate memory", "cannot allocate")
    )


def _left_to_groups(root: Path) -> Iterator[int]:
    """Bytes that each control group of this process may still use, where there are such."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            mounted, files = "sys/fs/cgroup", GROUP_FILES[0]
        elif "memory" in controllers.split(","):
            mounted, files = "sys/fs/cgroup/memory", GROUP_FILES[1]
        else:
            continue
        # Inside a container the path may be one outside, and then only the mounted root is there.
        group = Path(path.lstrip("/"))
        for part in (group, *group.parents):
            left = _left(root / mounted / part, *files)
            if left is not None:
                yield left


def _left(group: Path, limit: str, usage: str, file_cache: str) -> int | None:
    """None where the group sets no limit."""
    try:
        most = (group / limit).read_text().strip()
        if most == "max":
            return None
        used = int((group / usage).read_text())
        counts = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        return max(0, int(most) - used + int(counts.get(file_cache, 0)))
    except (OSError, ValueError):
        return None
