"""A file of options in YAML."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from hallutrace.errors import InputError
from hallutrace.option_names import parameter
from hallutrace.paths import expanded

BOOLEAN = re.compile("^(?:true|True|TRUE|false|False|FALSE)$")


class _TextLoader(yaml.SafeLoader):
    """YAML in which only true and false are booleans: off, on, yes and no are text, as in 1.2."""


_TextLoader.yaml_implicit_resolvers = {
    first: [
        (tag, BOOLEAN if tag == "tag:yaml.org,2002:bool" else pattern) for tag, pattern in resolvers
    ]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def read_yaml(path: Path) -> dict[str, Any]:
    """Reads a configuration file.

    ``off``, ``on``, ``yes`` and ``no`` are the text that fields such as ``chat`` take. Within a
    field that is a mapping for others, such as ``chat_template_kwargs``, they are booleans.

    Raises:
        InputError: no such file, or not a mapping of fields.
    """
    path = expanded(path)
    try:
        text = path.read_text(encoding="utf-8")
        content: Any = yaml.load(text, _TextLoader)
        for_others: Any = yaml.safe_load(text)
    except OSError as error:
        raise InputError(
            f"Expected a configuration file, got {error.strerror} at {path} - check "
            f"{parameter('config')}"
        ) from None
    except (yaml.YAMLError, UnicodeDecodeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"Expected YAML in {path}, got {reason} - fix the file") from None
    if content is None:
        return {}
    if not isinstance(content, dict) or not all(isinstance(name, str) for name in content):
        raise InputError(
            f"Expected fields by name in {path}, got {type(content).__name__} - "
            "write lines such as `model: NAME`"
        )
    return {
        name.replace("-", "_"): for_others[name] if isinstance(value, dict) else value
        for name, value in content.items()
    }
