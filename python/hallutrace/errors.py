"""Errors of hallutrace: one tree, so that ``except HallutraceError`` catches all of it.

HallutraceError
├── InputError (ValueError)            an argument, option or row that the caller can fix
│   ├── IdentityError                  a run that exists and was asked for differently
│   ├── NonFiniteError                 a trace with numbers that are NaN or infinite
│   └── NotInRunError                  what a run does not have, such as labels
├── ModelError (ValueError)            a model that cannot be loaded or traced
├── NotARunError (FileNotFoundError)   a folder that holds no run
├── DamagedError (ValueError)          a shard, record or manifest that is damaged
├── StorageError (OSError)             the disk refused: full, read-only, gone
│   ├── SupersededError                another process continues the shard
│   └── UnrecordedError                a finished shard without its commit record
├── InternalError (RuntimeError)       a bug of hallutrace, to be reported
└── MissingExtraError (ImportError)    an optional package that is not installed

Every message says what was expected, what was found, where, and how to fix it.
"""

from __future__ import annotations


class HallutraceError(Exception):
    """Base of every error that hallutrace raises on purpose."""


class InputError(HallutraceError, ValueError):
    """An argument, option or row of input that the caller can fix."""


class IdentityError(InputError):
    """A run that exists was extracted with other settings; the message names the fields."""


class NonFiniteError(InputError):
    """Numbers of a trace, or a score of it, that are NaN or infinite; the message names it."""


class NotInRunError(InputError):
    """Something that a run does not have, such as labels; the message names what gives it."""


class ModelError(HallutraceError, ValueError):
    """A model that cannot be loaded, or whose attention cannot be captured."""


class NotARunError(HallutraceError, FileNotFoundError):
    """A folder that holds no run."""


class DamagedError(HallutraceError, ValueError):
    """A shard, commit record or manifest that is damaged."""


class StorageError(HallutraceError, OSError):
    """The file system refused: full, read-only, or gone."""


class SupersededError(StorageError):
    """Another process continues the shard; what this one wrote since is lost."""


class UnrecordedError(StorageError):
    """A finished shard exists already, without a commit record and without a journal."""


class InternalError(HallutraceError, RuntimeError):
    """A bug of hallutrace: please report it."""


class MissingExtraError(HallutraceError, ImportError):
    """An optional package is not installed; the message names the extra that brings it."""

    @classmethod
    def of(cls, package: str, extra: str, purpose: str) -> MissingExtraError:
        """The error for one missing package.

        Examples:
            >>> print(MissingExtraError.of("pyarrow", "data", "Parquet"))
            Expected the package `pyarrow` for Parquet, got no such package - pip install "hallutrace[data]"
        """  # noqa: E501
        return cls(
            f"Expected the package `{package}` for {purpose}, got no such package - "
            f'pip install "hallutrace[{extra}]"'
        )
