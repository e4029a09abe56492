"""Takes the screenshots of the documents: views of a report of the small model.

    python tools/screenshots.py RUN EVALUATION docs/images

It needs playwright, a Chromium, and pillow, which reduces each picture to a palette.
"""

from __future__ import annotations

import io
import sys
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image

import hallutrace
from hallutrace.viewer.report.report import write_report
from hallutrace.viewer.viewed_run import ViewedRun

SIZE = {"width": 1000, "height": 760}
COLORS = 128
SHOTS = {
    "report-run": {"view": "run"},
    "report-layers": {"view": "layers"},
    "report-trace": {"view": "trace"},
    "report-map": {"view": "map"},
    "report-detectors": {"view": "detectors"},
    "report-errors": {"view": "errors"},
}


def main(run: Path, evaluation: Path, folder: Path) -> None:
    """Writes one PNG for each view."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "python"))
    from browsers import Opened, chromium

    with tempfile.TemporaryDirectory() as scratch, chromium() as browser:
        page = Path(scratch) / "report.html"
        write_report(ViewedRun(hallutrace.open(run), evaluation), page)
        shown = Opened(browser, page, viewport=SIZE, color_scheme="light")
        for name, state in SHOTS.items():
            shown.show(**state)
            save(shown.page.screenshot(), folder / f"{name}.png")
        shown.close()


def save(picture: bytes, path: Path) -> None:
    """Writes a picture with a small palette."""
    image: Any = Image.open(io.BytesIO(picture)).convert("RGB")
    image.quantize(COLORS, dither=Image.Dither.NONE).save(path, optimize=True)
    print(path, path.stat().st_size)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:4]))
