"""What memory is free, within the limits that control groups set."""

from __future__ import annotations

import os
from pathlib import Path

import psutil
import pytest
import torch

from hallutrace.cpu_threads import available_cpus
from hallutrace.model import free_memory

GB = 2**30


def group(folder: Path, names: tuple[str, str, str], limit: object, used: int, cached: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / names[0]).write_text(f"{limit}\n")
    (folder / names[1]).write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon 1\n{names[2]} {cached}\n")


def groups_of_this_process(root: Path, line: str) -> None:
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(f"1:cpu:/other\n{line}\n")


@pytest.mark.parametrize(
    ("line", "mounted", "names"),
    [
        ("0::/job/step", "sys/fs/cgroup", free_memory.GROUP_FILES[0]),
        ("4:memory,hugetlb:/job/step", "sys/fs/cgroup/memory", free_memory.GROUP_FILES[1]),
    ],
    ids=["version 2", "version 1"],
)
def test_every_group_above_a_process_limits_it(
    tmp_path: Path, line: str, mounted: str, names: tuple[str, str, str]
) -> None:
    groups_of_this_process(tmp_path, line)
    group(tmp_path / mounted / "job", names, 16 * GB, used=10 * GB, cached=3 * GB)
    group(tmp_path / mounted / "job/step", names, 32 * GB, used=GB, cached=0)
    assert sorted(free_memory._left_to_groups(tmp_path)) == [9 * GB, 31 * GB]


def test_a_container_sees_its_own_group_as_the_root(tmp_path: Path) -> None:
    groups_of_this_process(tmp_path, "0::/somewhere/outside")
    group(tmp_path / "sys/fs/cgroup", free_memory.GROUP_FILES[0], 8 * GB, used=GB, cached=0)
    assert list(free_memory._left_to_groups(tmp_path)) == [7 * GB]


def test_no_limit_is_none_and_an_exceeded_one_leaves_nothing(tmp_path: Path) -> None:
    groups_of_this_process(tmp_path, "0::/job/step")
    group(tmp_path / "sys/fs/cgroup/job", free_memory.GROUP_FILES[0], "max", used=GB, cached=0)
    group(
        tmp_path / "sys/fs/cgroup/job/step", free_memory.GROUP_FILES[0], GB, used=2 * GB, cached=0
    )
    assert list(free_memory._left_to_groups(tmp_path)) == [0]


@pytest.mark.parametrize("text", ["", "0::/\n", "1:cpu:/\n"])
def test_without_groups_the_system_decides(tmp_path: Path, text: str) -> None:
    assert list(free_memory._left_to_groups(tmp_path)) == []
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text(text)
    assert list(free_memory._left_to_groups(tmp_path)) == []


def test_files_in_the_cache_count_as_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(free_memory, "_left_to_groups", lambda root: iter(()))
    assert free_memory.free_memory(["cpu"]) == pytest.approx(
        psutil.virtual_memory().available, rel=0.2
    )
    monkeypatch.setattr(free_memory, "_left_to_groups", lambda root: iter([5, 7]))
    assert free_memory.free_memory(["cpu"]) == 5


def test_the_devices_of_the_model_are_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not the current one; and of several, none may be filled."""
    free = {"cuda:0": 3 * GB, "cuda:1": 7 * GB, "cuda:2": 5 * GB}
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free[device], 80 * GB))
    assert free_memory.free_memory(["cuda:1"]) == 7 * GB
    assert free_memory.free_memory(["cuda:1", "cuda:2", "cuda:2", "cpu"]) == 10 * GB


def test_cpus_are_those_that_the_process_may_use() -> None:
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert available_cpus() == 1
    finally:
        os.sched_setaffinity(0, before)
    assert available_cpus() == len(before)
