"""The plan of the house: imports flow one way, and what is private to a package stays there."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import hallutrace

PACKAGE = Path(hallutrace.__file__).parent

# Each room imports only rooms of rows above its own, and of its row where it has a number of files.
ORDER = (
    ("errors", "choices"),
    (
        "atomic_files",
        "demo",
        "paths",
        "escaping",
        "listed_names",
        "option_names",
        "progress",
        "retry",
        "splits",
        "canonical_json",
        "cpu_threads",
        "package_versions",
        "notebook_display",
    ),
    ("normalization", "third_party", "chat_arguments", "transformers_compat"),
    ("registry", "plugins"),
    ("text_measures",),
    ("label_protocols", "presets"),
    ("config_file",),
    ("config",),
    ("attention",),
    ("questions",),
    ("model",),
    ("capture",),
    ("store",),
    ("labels",),
    ("extraction",),
    ("graphs",),
    ("detect",),
    ("viewer",),
    ("commands",),
    ("__main__",),
)
FLOOR = {room: floor for floor, rooms in enumerate(ORDER) for room in rooms}
WITH_THE_CORE = {"attention", "capture", "cpu_threads", "extraction", "store"}


def modules() -> dict[str, ast.Module]:
    """Every module of the package but its front door, by dotted name without the package's."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        name = ".".join(parts).removesuffix(".__init__")
        if name != "__init__":
            found[name] = ast.parse(path.read_text(encoding="utf-8"))
    return found


def imports(tree: ast.Module) -> Iterator[tuple[str, list[str]]]:
    """What a module imports of the package, also within functions: module and names."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("hallutrace"):
            module = (node.module or "").removeprefix("hallutrace").removeprefix(".")
            for alias in node.names:
                yield (module, [alias.name]) if module else (alias.name, [])
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.startswith("hallutrace."):
                    yield alias.name.removeprefix("hallutrace."), []


def room_of(module: str) -> str:
    """The package, or the module beside the packages, that a module belongs to."""
    return module.partition(".")[0]


def test_every_room_has_a_floor() -> None:
    assert {room_of(name) for name in modules()} == set(FLOOR)


def test_imports_flow_one_way() -> None:
    wrong = [
        f"{name} imports {module}"
        for name, tree in modules().items()
        for module, _ in imports(tree)
        if room_of(module) in FLOOR
        and room_of(module) != room_of(name)
        and FLOOR[room_of(module)] > FLOOR[room_of(name)]
    ]
    assert not wrong


def test_no_circles_between_modules() -> None:
    graph: dict[str, set[str]] = {}
    known = modules()
    for name, tree in known.items():
        targets = set()
        for module, names in imports(tree):
            inner = {f"{module}.{part}" for part in names} & known.keys()
            targets |= inner or ({module} & known.keys())
        # A package's front door imports what is in it.
        graph[name] = targets - {name}
    TopologicalSorter(graph).prepare()


def test_what_is_private_to_a_package_stays_there() -> None:
    wrong = [
        f"{name} imports {module} {names}"
        for name, tree in modules().items()
        for module, names in imports(tree)
        if room_of(module) != room_of(name)
        for part in [*module.split(".")[1:], *names]
        if part.startswith("_") and module != "_core" and part != "_core"
    ]
    assert not wrong


def test_private_attributes_are_read_where_they_are_made() -> None:
    """``x._name`` is read only in a package where something sets or defines ``_name``."""
    made: dict[str, set[str]] = {}
    read: list[tuple[str, str, int]] = []
    for name, tree in modules().items():
        room = room_of(name)
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                made.setdefault(room, set()).add(node.name)
            elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                made.setdefault(room, set()).add(node.target.id)
            elif isinstance(node, ast.Attribute):
                if isinstance(node.ctx, ast.Store):
                    made.setdefault(room, set()).add(node.attr)
                elif node.attr.startswith("_") and not node.attr.startswith("__"):
                    read.append((name, node.attr, node.lineno))
            elif isinstance(node, ast.Assign):
                made.setdefault(room, set()).update(
                    target.id for target in node.targets if isinstance(target, ast.Name)
                )
    ours = set().union(*made.values())
    wrong = [
        f"{name}, line {line}: {attribute}"
        for name, attribute, line in read
        if attribute in ours and attribute not in made.get(room_of(name), set())
    ]
    assert not wrong


def test_few_rooms_know_the_core() -> None:
    knowing = {
        room_of(name)
        for name, tree in modules().items()
        for module, names in imports(tree)
        if "_core" in [module, *names]
    }
    assert knowing <= WITH_THE_CORE


def test_all_that_is_exported_is_there() -> None:
    for name in hallutrace.__all__:
        assert getattr(hallutrace, name).__doc__
    assert set(hallutrace.__all__) <= set(dir(hallutrace))


def test_files_that_the_documents_name_are_there() -> None:
    root = Path(__file__).parents[2]
    for page in ("ARCHITECTURE.md", "CONTRIBUTING.md"):
        text = (root / page).read_text(encoding="utf-8")
        for name in re.findall(r"`([\w./]+/[\w./]+)`", text):
            if "NAME" in name:
                continue
            paths = (root / name, root / "python" / "hallutrace" / name)
            assert any(path.exists() for path in paths), f"{page} names {name}"
