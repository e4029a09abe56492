"""A page as PDF, printed by a Chromium of this machine."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from hallutrace import atomic_files
from hallutrace.errors import InputError, StorageError
from hallutrace.option_names import parameter

NAMES = (
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
    "chrome",
    "msedge",
)
VARIABLE = "HALLUTRACE_CHROMIUM"
TIME_LIMIT = 300  # seconds


def find_chromium() -> str:
    """Path of a Chromium: of the variable ``HALLUTRACE_CHROMIUM``, else the first on PATH.

    Raises:
        InputError: there is none.

    Examples:
        >>> import os
        >>> os.environ["HALLUTRACE_CHROMIUM"] = "/opt/chromium"
        >>> find_chromium()
        '/opt/chromium'
        >>> del os.environ["HALLUTRACE_CHROMIUM"]
    """
    found = os.environ.get(VARIABLE) or next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        raise InputError(
            f"Expected a Chromium to print with, got none of {', '.join(NAMES)} on PATH - install "
            f"one, name it in {VARIABLE}, or print the HTML report from any browser"
        )
    return found


def print_to_pdf(report: Path, out: Path) -> None:
    """Prints all views of a report.

    Args:
        report: the HTML file.
        out: of the PDF; a file that is there is replaced.

    Raises:
        InputError: no Chromium is found.
        StorageError: it gave no PDF, or the file cannot be written.
    """
    chromium = find_chromium()
    with tempfile.TemporaryDirectory() as folder:
        printed = Path(folder) / "report.pdf"
        command = [
            chromium,
            "--headless",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--no-pdf-header-footer",
            "--virtual-time-budget=60000",
            f"--user-data-dir={folder}/profile",
            f"--print-to-pdf={printed}",
            f"{report.resolve().as_uri()}#print=all",
        ]
        if hasattr(os, "geteuid") and os.geteuid() == 0:
            command.insert(1, "--no-sandbox")  # which Chromium demands of root
        try:
            ended = subprocess.run(command, capture_output=True, timeout=TIME_LIMIT, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise StorageError(f"Expected {chromium} to print {report}, got {error}") from None
        if not printed.is_file():
            told = ended.stderr.decode("utf-8", "replace").strip().splitlines()[-1:] or ["nothing"]
            raise StorageError(f"Expected a PDF of {report} from {chromium}, got: {told[0]}")
        fix = f"choose another file with {parameter('out', option='--pdf')}"
        with atomic_files.storage_errors(f"write {out}", fix):
            atomic_files.write(out, printed.read_bytes())
