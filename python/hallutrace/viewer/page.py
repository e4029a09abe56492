"""The page as one HTML file: modules, style and data in it, and nothing from elsewhere.

The modules in ``browser/`` are plain ES modules. Here they become one script: each module turns
into a function that returns what it exports, in the order in which they import each other.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

_IMPORT = re.compile(r'^import \{([^}]*)\} from "([^"]+)";\n', re.MULTILINE)
_EXPORT = re.compile(r"^export (?=(?:async )?(?:function\*?|const|class) (\w+))", re.MULTILINE)
_COMMENT = re.compile(r"^[ \t]*/\*(?:(?!\*/).)*\*/[ \t]*$", re.MULTILINE | re.DOTALL)
_START = "main.js"

FOOTER = (
    "Attention says where a model looked, not why it answered: read no weight here as an "
    "explanation."
)


def page(
    settings: Mapping[str, Any],
    payloads: Iterable[tuple[str, bytes]] = (),
    more_settings: Callable[[], Mapping[str, Any]] = dict,
) -> Iterator[str]:
    """The page, in pieces.

    Args:
        settings: ``title``, and whatever the modules read of ``settings``; JSON-able.
        payloads: key and payload (:func:`hallutrace.viewer.payload.pack`) of what is embedded.
        more_settings: gives those that are known only after the last payload.

    Returns:
        Pieces of HTML; joined they are the page.

    Examples:
        >>> text = "".join(page({"title": "a run"}))
        >>> text.startswith("<!doctype html>"), "Content-Security-Policy" in text
        (True, True)
    """
    script, style = browser_script(), browser_style()
    policy = content_security_policy(served=bool(settings.get("served")))
    yield "<!doctype html>\n"
    yield '<html lang="en">\n<head>\n<meta charset="utf-8">\n'
    yield f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
    yield '<meta name="referrer" content="no-referrer">\n'
    yield f"<title>{html.escape(str(settings['title']))}</title>\n"
    yield f"<style>{style}</style>\n</head>\n<body>\n"
    yield '<div id="page"></div>\n'
    yield "<noscript>This page needs JavaScript, which is switched off.</noscript>\n"
    for key, payload in payloads:
        name = html.escape(key)
        data = base64.b64encode(payload).decode("ascii")
        yield f'<script type="application/octet-stream" data-key="{name}">{data}</script>\n'
    whole = _json({**settings, **more_settings()})
    yield f'<script type="application/json" id="settings">{whole}</script>\n'
    yield f'<script type="module">{script}</script>\n</body>\n</html>\n'


def content_security_policy(served: bool = False) -> str:
    """What the page may do: run its own script and style, and, if served, ask its own server.

    Args:
        served: whether a server answers the page.

    Examples:
        >>> content_security_policy().split("; ")[0]
        "default-src 'none'"
    """
    rules = [
        "default-src 'none'",
        f"script-src '{_digest(browser_script())}'",
        f"style-src '{_digest(browser_style())}'",
        "img-src data: blob:",
        "base-uri 'none'",
        "form-action 'none'",
    ]
    return "; ".join([*rules, "connect-src 'self'"] if served else rules)


@cache
def browser_style() -> str:
    """All style of the page."""
    name = "style.css"
    return _without_comments(name, (_browser() / name).read_text("utf-8"))


@cache
def browser_script() -> str:
    """All modules as one script.

    Raises:
        ValueError: a module imports what is not there, or two import each other.
    """
    modules = dict(_modules())
    needed = {
        name: [_found(name, one[1]) for one in _IMPORT.findall(text)]
        for name, text in modules.items()
    }
    needed[_START] += [name for name in modules if name.startswith("views/")]
    order = TopologicalSorter({name: sorted(set(ones)) for name, ones in needed.items()})
    functions = [_as_function(name, modules[name]) for name in order.static_order()]
    return '"use strict";\nconst modules = (globalThis.hallutrace = {});\n' + "".join(functions)


def _as_function(name: str, text: str) -> str:
    def bound(match: re.Match[str]) -> str:
        names = ", ".join(
            one.strip().replace(" as ", ": ") for one in match[1].split(",") if one.strip()
        )
        return f"const {{ {names} }} = modules[{json.dumps(_found(name, match[2]))}];\n"

    exported = ", ".join(_EXPORT.findall(text))
    body = _without_comments(name, _EXPORT.sub("", _IMPORT.sub(bound, text)))
    if left := re.search(r"^(?:import|export)\b.*", body, re.MULTILINE):
        raise ValueError(
            f"Expected `import {{ names }} from` or `export function`, got {left[0]!r} in {name}"
        )
    return f"modules[{json.dumps(name)}] = (() => {{\n{body}return {{ {exported} }};\n}})();\n"


def _without_comments(name: str, text: str) -> str:
    """Without indentation and without comments that have lines of their own.

    Raises:
        ValueError: a text in backticks that goes over several lines, which would be changed.
    """
    lines = [line.strip() for line in _COMMENT.sub("", text).splitlines()]
    for line in lines:
        if line.count("`") % 2 and not line.startswith("//"):
            raise ValueError(f"Expected texts in backticks on one line, got {line!r} in {name}")
    return "".join(f"{line}\n" for line in lines if line and not line.startswith("//"))


def _found(importer: str, name: str) -> str:
    """The name of a module that another imports, counted from ``browser/``."""
    folder = importer.rpartition("/")[0]
    parts = folder.split("/") if folder else []
    for part in name.split("/"):
        if part == "..":
            parts.pop()
        elif part != ".":
            parts.append(part)
    return "/".join(parts)


def _modules() -> Iterator[tuple[str, str]]:
    for folder, prefix in ((_browser(), ""), (_browser() / "views", "views/")):
        for file in sorted(folder.iterdir()):
            if file.name.endswith(".js"):
                yield prefix + file.name, file.read_text("utf-8")


def _browser() -> Path:
    return Path(__file__).parent / "browser"


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")


def _json(value: Any) -> str:
    """JSON that cannot end the element it stands in."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
