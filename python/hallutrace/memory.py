"""Memory that is free where a model runs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

# Of a control group of Linux: its limit, what it uses, and the line of memory.stat that counts what
# of that is only a copy of files. First of version 2, then of version 1.
GROUP_FILES = (
    ("memory.max", "memory.current", "inactive_file"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a GPU or the CPU's allocator had no more memory."""
    import torch

    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    text = str(error)
    return "not enough memory" in text or "can't allocate memory" in text


def release_cached_memory() -> None:
    """Gives back what torch keeps of a GPU's memory for later."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def free_memory(device: str) -> int:
    """Bytes that are free on the device, or that the system and its control groups would give.

    What only caches files counts as free, as it does for the system itself: on a machine that has
    read a large model there is little else.

    Args:
        device: ``cpu`` or ``cuda``.
    """
    if device == "cuda":
        import torch

        return int(torch.cuda.mem_get_info()[0])
    import psutil

    return min([int(psutil.virtual_memory().available), *_left_to_groups(Path("/"))])


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
