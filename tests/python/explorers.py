"""The explorer in tests: as an application in this process, and as a process of its own."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from starlette.testclient import TestClient

from hallutrace.viewer.explorer.catalog import Catalog
from hallutrace.viewer.explorer.security import Access
from hallutrace.viewer.explorer.server import Explorer, application

POST = {"x-hallutrace": "1", "content-type": "application/json"}


def explorer_of(*folders: Path, host: str = "127.0.0.1", has_token: bool = False) -> Explorer:
    """The explorer of some folders."""
    catalog = Catalog(folders)
    return Explorer.of(catalog, Access.of(host, 8765, has_token))


def client_of(explorer: Explorer, **options: Any) -> TestClient:
    """What asks it, as a browser on this machine would."""
    address = "http://127.0.0.1:8765"
    return TestClient(application(explorer), base_url=address, follow_redirects=False, **options)


@contextmanager
def served(*arguments: Any) -> Iterator[str]:
    """`hallutrace explore` as a process of its own; its address. Ctrl-C ends it with 0."""
    command = [sys.executable, "-m", "hallutrace", "explore", *map(str, arguments), "--port", "0"]
    environment = {**os.environ, "COLUMNS": "200", "HF_HUB_OFFLINE": "1"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    try:
        found = re.search(r"http://\S+", process.stdout.readline())
        assert found is not None
        yield found[0]
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()
