"""Names under which anyone adds a detector, a labelling protocol or a source of questions.

A name comes from one of three places:

- it is built in: ``module:attribute``, imported when the name is asked for;
- an installed package gives it by an entry point, imported when the name is asked for;
- code that runs registers it by a decorator: a script, a notebook, or a file that the user names
  (``--plugin FILE``, :mod:`hallutrace.plugins`).
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
import re
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import asdict, dataclass
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

from hallutrace.errors import InputError, MissingExtraError
from hallutrace.option_names import wording
from hallutrace.third_party import reason_of

Thing = TypeVar("Thing")

NAME = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*")


@dataclass(frozen=True)
class Origin:
    """Where the code behind a name is from.

    Attributes:
        kind: ``built-in``, ``package`` (an entry point), ``file`` (named by the user) or ``module``
            (registered by a decorator in a script, a notebook or an imported module).
        where: the package with its version, the file, or the module.
    """

    kind: Literal["built-in", "package", "file", "module"]
    where: str

    def __str__(self) -> str:
        return self.kind if self.kind == "built-in" else f"{self.kind} {self.where}"

    def to_json(self) -> dict[str, str]:
        """The fields by name."""
        return asdict(self)


class Registry(Generic[Thing]):
    """Things by name.

    Args:
        kind: what they are, as in "Expected a detector".
        group: of entry points.
        built_in: ``module:attribute`` by name.
        check: raises InputError unless a thing is what it should be under a name; gives it back.
        extra: the extra of this package that brings what built-in ones import.
    """

    def __init__(
        self,
        kind: str,
        group: str,
        built_in: Mapping[str, str],
        check: Callable[[str, Any], Thing],
        extra: str = "",
    ) -> None:
        self.kind, self._group, self._built_in = kind, group, dict(built_in)
        self._check, self._extra = check, extra
        self._added: dict[str, tuple[Thing, Origin, Any]] = {}
        REGISTRIES.append(self)

    def names(self) -> list[str]:
        """All names: built-in ones in their order, then those of packages, then registered ones."""
        return list(dict.fromkeys([*self._built_in, *sorted(self._points()), *self._added]))

    def add(self, name: Any, thing: Any) -> Thing:
        """Registers a thing; one that is defined anew in the same place replaces the older one.

        Raises:
            InputError: no proper name, another thing's name, or a thing of the wrong kind.
        """
        if not (isinstance(name, str) and NAME.fullmatch(name)):
            raise InputError(
                f"Expected a name of small letters, digits and hyphens for {_described(thing)}, "
                f"got {name!r} - name it such as my-{self.kind.split()[-1]}"
            )
        found, origin = self._check(name, thing), _origin_of(thing)
        if name not in self._added and self.holds(name, thing):
            return found  # the module of an entry point, which registers the same by a decorator
        if name in self.names():
            before = self._added.get(name)
            if before is None or _described(before[2]) != _described(thing):
                raise InputError(
                    f"Expected a name that no other {self.kind} has for {_described(thing)}, got "
                    f"`{name}`, which is there ({self.origin(name)}) - choose another name"
                )
        self._added[name] = (found, origin, thing)
        return found

    def find(self, name: str) -> Thing:
        """The thing of a name; its module is imported now if it was not yet.

        Raises:
            InputError: no such name, one that two packages give, or code that cannot be imported or
                is something else.
            MissingExtraError: a package that built-in code needs is not installed.
        """
        if name in self._added:
            return self._added[name][0]
        points = self._points().get(name, [])
        if len(points) + (name in self._built_in) > 1:
            froms = [*(["built in"] if name in self._built_in else []), *map(_package, points)]
            raise InputError(
                f"Expected one {self.kind} `{name}`, got several ({', '.join(froms)}) - "
                "uninstall one of those packages"
            )
        if name in self._built_in:
            return self._check(name, self._import(name))
        if not points:
            raise InputError(
                f"Expected a {self.kind} ({', '.join(self.names())}), got {name!r} - choose one of "
                f"them, or {to_register()}"
            )
        expected = f"the {self.kind} `{name}` of {_package(points[0])}"
        try:
            thing = points[0].load()
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            raise InputError(
                f"Expected {expected} to be imported, got {reason_of(error)} in "
                f"{points[0].value} - fix or uninstall that package"
            ) from error
        return self._check(name, thing)

    def origin(self, name: str) -> Origin:
        """Where the code behind a name is from; nothing is imported.

        Raises:
            InputError: no such name.
        """
        if name in self._added:
            return self._added[name][1]
        if name in self._built_in:
            return Origin("built-in", "hallutrace")
        if points := self._points().get(name):
            return Origin("package", _package(points[0]))
        self.find(name)  # says which there are
        raise AssertionError

    def code_digest(self, name: str) -> str | None:
        """16 hexadecimal digits that change with the file that a thing is defined in.

        None for what is built in, which the version of this package stands for.
        """
        if self.origin(name).kind == "built-in":
            return None
        thing: Any = inspect.unwrap(self.find(name))  # type: ignore[arg-type]
        try:
            text = Path(inspect.getfile(thing)).read_bytes()
        except (OSError, TypeError):  # defined in a notebook or an interpreter
            try:
                text = inspect.getsource(thing).encode()
            except (OSError, TypeError):
                text = _described(thing).encode()
        return hashlib.sha256(text).hexdigest()[:16]

    def holds(self, name: str, thing: Any) -> bool:
        """Whether a name stands for a thing; nothing is imported."""
        if name in self._added:
            return self._added[name][2] is thing
        module, called = _defined(thing)
        target = f"{module}:{called}"
        points = [point.value for point in self._points().get(name, [])]
        return target in [self._built_in.get(name), *points]

    def remove(self, name: str) -> None:
        """Takes a registered thing away; does nothing where there is none."""
        self._added.pop(name, None)

    def added(self) -> dict[str, Origin]:
        """What was registered by code that ran, by name."""
        return {name: origin for name, (_, origin, _) in self._added.items()}

    def _import(self, name: str) -> Any:
        module, _, attribute = self._built_in[name].partition(":")
        try:
            return getattr(importlib.import_module(module), attribute)
        except ModuleNotFoundError as error:
            if error.name is None or error.name.startswith("hallutrace"):
                raise
            raise MissingExtraError.of(
                error.name, self._extra, f"the {self.kind} `{name}`"
            ) from None

    def _points(self) -> dict[str, list[EntryPoint]]:
        found: dict[str, list[EntryPoint]] = {}
        for point in entry_points(group=self._group):
            found.setdefault(point.name, []).append(point)
        return found


REGISTRIES: list[Registry[Any]] = []
"""All that there are, in the order in which they were made."""

running_file: ContextVar[Path | None] = ContextVar("running_file", default=None)
"""The file of the user's that is being run, which registers things."""


def to_register() -> str:
    """How to have a thing that a file of the user's registers, in a message.

    Examples:
        >>> to_register()
        'run the file that registers it with `hallutrace.plugins.load_plugin`'
    """
    return wording(
        "run the file that registers it with `hallutrace.plugins.load_plugin`",
        "name the file that registers it with --plugin FILE",
    )


def origin_of(name: str, thing: Any) -> Origin:
    """Where the code of a thing is from, by the name it has in a registry or by its module."""
    for registry in REGISTRIES:
        if registry.holds(name, thing):
            return registry.origin(name)
    return Origin("module", str(thing.__module__))


def _origin_of(thing: Any) -> Origin:
    if (path := running_file.get()) is not None:
        return Origin("file", str(path))
    return Origin("module", _defined(thing)[0])


def _package(point: EntryPoint) -> str:
    return "a package" if point.dist is None else f"{point.dist.name} {point.dist.version}"


def _defined(thing: Any) -> tuple[str, str]:
    """Module and name of the class or function that a thing is, wraps, or is made of."""
    inner = inspect.unwrap(thing)
    return str(inner.__module__), str(getattr(inner, "__qualname__", type(inner).__qualname__))


def _described(thing: Any) -> str:
    """What a thing is called in messages."""
    return ".".join(_defined(thing))
