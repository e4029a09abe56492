"""Files of the user's that register detectors, labelling protocols or sources of questions.

A file is run because the user names it (``--plugin FILE``), never because a run or a saved detector
says so.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import sys
from dataclasses import dataclass
from pathlib import Path

from hallutrace.errors import HallutraceError, InputError
from hallutrace.option_names import parameter
from hallutrace.paths import expanded
from hallutrace.registry import REGISTRIES, Origin, running_file
from hallutrace.third_party import reason_of

_files: dict[Path, list[str]] = {}


def load_plugin(file: str | Path) -> list[str]:
    """Runs a file of the user's that registers detectors, labelling protocols or sources.

    Args:
        file: a ``.py`` file; one that was run before is not run again.

    Returns:
        What it registered, such as ``detector my-name``.

    Raises:
        InputError: no such file, one that fails, or one that registers nothing.
    """
    path = expanded(str(file)).resolve()
    if path in _files:
        return _files[path]
    if path.suffix != ".py" or not path.is_file():
        raise InputError(
            f"Expected a .py file, got {file} - change {parameter('file', option='--plugin')}"
        )
    name = f"_hallutrace_plugin_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None  # for a .py file there is one
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    token = running_file.set(path)
    try:
        spec.loader.exec_module(module)
    except BaseException as error:
        _forget(path, name)
        if isinstance(error, (HallutraceError, KeyboardInterrupt, MemoryError)):
            raise
        raise InputError(
            f"Expected {file} to run, got {reason_of(error)}{_line_of(error, path)} - fix the file"
        ) from error
    finally:
        running_file.reset(token)
    found = _registered_by(path)
    if not found:
        _forget(path, name)
        raise InputError(
            f"Expected {file} to register a detector, a labelling protocol or a source of "
            "questions, got nothing - put a decorator such as @hallutrace.detect.register on it"
        )
    _files[path] = found
    return found


def forget_plugins() -> None:
    """Takes away all that files of the user's have registered."""
    for registry in REGISTRIES:
        for name, origin in registry.added().items():
            if origin.kind == "file":
                registry.remove(name)
    _files.clear()


@dataclass(frozen=True)
class Registered:
    """What code that ran has registered, for other processes to run it too.

    Attributes:
        files: that the user named.
        modules: that register something when they are imported.
    """

    files: tuple[Path, ...]
    modules: tuple[str, ...]

    @classmethod
    def here(cls) -> Registered:
        """Of this process."""
        modules = {
            origin.where
            for registry in REGISTRIES
            for origin in registry.added().values()
            if origin.kind == "module"
        }
        return cls(tuple(_files), tuple(sorted(modules - {"__main__"})))

    def restore(self) -> None:
        """Registers the same in this process; what cannot be imported is left out."""
        for path in self.files:
            load_plugin(path)
        for module in self.modules:
            if module not in sys.modules:
                try:
                    importlib.import_module(module)
                except ImportError:
                    continue  # whoever asks for its names is told that there are none


def _registered_by(path: Path) -> list[str]:
    return [
        f"{registry.kind} {name}"
        for registry in REGISTRIES
        for name, origin in registry.added().items()
        if origin == Origin("file", str(path))
    ]


def _forget(path: Path, module: str) -> None:
    """Takes away what a file registered before it failed."""
    sys.modules.pop(module, None)
    for registry in REGISTRIES:
        for name, origin in registry.added().items():
            if origin == Origin("file", str(path)):
                registry.remove(name)


def _line_of(error: BaseException, path: Path) -> str:
    """The line of a file that an error comes from."""
    if isinstance(error, SyntaxError) and error.filename == str(path):
        return f" in line {error.lineno}"
    lines = [
        frame.lineno
        for frame in inspect.getinnerframes(error.__traceback__)  # type: ignore[arg-type]
        if frame.filename == str(path)
    ]
    return f" in line {lines[-1]}" if lines else ""
