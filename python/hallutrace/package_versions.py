"""Versions of installed packages."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version


def version_of(package: str) -> str | None:
    """The version of an installed package; None where it is not installed.

    Examples:
        >>> version_of("no-such-package") is None
        True
    """
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def versions_of(*packages: str) -> dict[str, str | None]:
    """The versions of packages, and of Python as ``python``; None where one is not installed.

    Examples:
        >>> sorted(versions_of("numpy", "torch"))
        ['numpy', 'python', 'torch']
    """
    return {name: version_of(name) for name in packages} | {"python": platform.python_version()}
