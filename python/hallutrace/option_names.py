"""Names of parameters in messages: as callers of Python give them, or as options of a command.

A message is written once, with :func:`parameter` in the place of each name. Only the command line
asks for options, around each command (:func:`naming_options`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from hallutrace.escaping import command

# Of the process, not of a context: the threads of a command name options too.
_is_command_line = False


@contextmanager
def naming_options() -> Iterator[None]:
    """Within it, messages of this process name options of the command line.

    Examples:
        >>> with naming_options():
        ...     parameter("top_k", 16)
        '--top-k 16'
    """
    before = names_options()
    name_options(True)
    try:
        yield
    finally:
        name_options(before)


def names_options() -> bool:
    """Whether messages name options, to tell a worker, which is a process of its own."""
    return _is_command_line


def name_options(is_command_line: bool) -> None:
    """Lets messages of this process name options, or parameters, from now on."""
    global _is_command_line
    _is_command_line = is_command_line


def parameter(name: str, *value: object, option: str | None = None) -> str:
    """A parameter in a message, with a value that it should have or has.

    Args:
        name: of the parameter of Python.
        value: at most one; on the command line True stands for the option alone and None for
            ``none``.
        option: of the command line; the name with dashes unless given.

    Examples:
        >>> parameter("top_k"), parameter("hidden_states", "answer"), parameter("overwrite", True)
        ('`top_k`', "`hidden_states='answer'`", '`overwrite=True`')
        >>> with naming_options():
        ...     parameter("top_k", None), parameter("overwrite", True), parameter("stop", "a b")
        ('--top-k none', '--overwrite', "--stop 'a b'")
    """
    if not _is_command_line:
        return f"`{'='.join([name, *map(repr, value)])}`"
    words = [option or "--" + name.replace("_", "-")]
    for one in value:
        if one is not True:
            words.append("none" if one is None else command(str(one)))
    return " ".join(words)


def wording(python: str, command_line: str) -> str:
    """The one of two texts that suits the reader, where names alone do not make the difference.

    Examples:
        >>> wording("call `load_plugin`", "give --plugin FILE")
        'call `load_plugin`'
    """
    return command_line if _is_command_line else python
