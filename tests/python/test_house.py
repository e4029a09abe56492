"""The plan of the house: imports flow one way, and reading a run needs nothing of making one."""

from __future__ import annotations

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import hallutrace

PACKAGE = Path(hallutrace.__file__).parent
MAKING = {
    "attention",
    "cache",
    "capture",
    "check_text",
    "eager_functions",
    "device_reduction",
    "few_rows",
    "generate",
    "models",
    "checkpoint",
    "weights",
    "vocabulary",
    "remote_code",
    "native_check",
    "tolerance",
    "probe",
    "assemble",
    "settings",
    "shard_job",
    "extraction",
}
READING = {
    "edges",
    "reductions",
    "trace",
    "store",
    "run",
    "verification",
    "rework",
    "repair",
    "inspection",
}


def module_of(path: Path) -> str:
    """The dotted name of a file within the package; a package is one room."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return parts[0]


def imports() -> dict[str, set[str]]:
    """The rooms that each room imports when it is loaded; what is imported on use is left out."""
    found: dict[str, set[str]] = {}
    for path in PACKAGE.rglob("*.py"):
        if path == PACKAGE / "__init__.py":
            continue
        room = module_of(path)
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("hallutrace"):
                names = [node.module or ""]
                if node.module == "hallutrace":
                    names = [f"hallutrace.{alias.name}" for alias in node.names]
                targets = {name.split(".")[1] for name in names if "." in name}
                found.setdefault(room, set()).update(targets - {room})
    return found


def test_imports_flow_one_way() -> None:
    order = list(TopologicalSorter(imports()).static_order())
    assert order.index("errors") < order.index("trace") < order.index("store")
    assert order.index("capture") < order.index("extraction")


def test_reading_needs_nothing_of_making() -> None:
    reached, waiting = set(), set(READING)
    graph = imports()
    while waiting:
        room = waiting.pop()
        reached.add(room)
        waiting |= graph.get(room, set()) - reached
    assert not reached & MAKING


def test_few_rooms_know_the_core() -> None:
    knowing = {room for room, others in imports().items() if "_core" in others}
    assert knowing <= {
        "capture",
        "reductions",
        "repair",
        "rework",
        "shard_job",
        "store",
        "trace",
        "verification",
    }


def test_all_that_is_exported_is_there() -> None:
    for name in hallutrace.__all__:
        assert getattr(hallutrace, name).__doc__
    assert set(hallutrace.__all__) <= set(dir(hallutrace))
