"""Which reader reads a file, by its extension, and errors for files that none reads."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from hallutrace.option_names import parameter
from hallutrace.questions.csv_files import Csv, Tsv
from hallutrace.questions.json_files import JsonFile, JsonLines
from hallutrace.questions.parquet_files import Parquet
from hallutrace.questions.rows import MismatchError, RowReader

HEAD = 4096
"""Bytes at the beginning that show whether a file is what its extension says."""

FORMATS = ".jsonl, .json, .csv, .tsv or .parquet"

READERS: dict[str, Callable[[Path], RowReader]] = {
    ".jsonl": JsonLines,
    ".ndjson": JsonLines,
    ".json": JsonFile,
    ".csv": Csv,
    ".tsv": Tsv,
    ".parquet": Parquet,
}

PACKED = "unpack it, as with gunzip or unzip, and give the file in it"
SHEET = "save the sheet as CSV in UTF-8"
CONVERTED = "write it as Parquet, as with pandas.DataFrame.to_parquet"
FIXES = {
    **dict.fromkeys((".gz", ".bz2", ".xz", ".zst", ".zip", ".tar", ".tgz"), PACKED),
    **dict.fromkeys((".xlsx", ".xls", ".ods"), SHEET),
    **dict.fromkeys((".arrow", ".feather", ".pkl", ".pickle", ".hdf5", ".h5"), CONVERTED),
    ".txt": 'write one JSON object a line, such as {"question": "who?"}, and name it .jsonl',
}
"""What to do about files of other kinds."""

UTF_16 = "text in UTF-16", "save it as UTF-8, as with iconv -f UTF-16 -t UTF-8"
MAGIC = {
    b"\xff\xfe": UTF_16,
    b"\xfe\xff": UTF_16,
    b"\x1f\x8b": ("a file that is compressed with gzip", PACKED),
    b"PK\x03\x04": ("a zip or an Excel file", f"{SHEET}, or {PACKED}"),
    b"\x28\xb5\x2f\xfd": ("a file that is compressed with zstd", PACKED),
    b"PAR1": ("a Parquet file", "rename it to .parquet"),
}
"""First bytes of files that are not text."""


def open_file(name: str, option: str) -> RowReader:
    r"""The reader for a file, by its extension.

    Args:
        name: path of the file; `~` is the home folder.
        option: where the name was given, for messages.

    Returns:
        A reader; of the content the beginning alone has been looked at.

    Raises:
        InputError: unknown extension, no such file, a folder, or a file that is something else
            than its name says.
        MissingExtraError: Parquet without pyarrow.

    Examples:
        >>> _ = Path("q.csv").write_text("question\nwho?\n")
        >>> [row.values for row in open_file("q.csv", "`questions`").rows()]
        [{'question': 'who?'}]
    """
    path = Path(name).expanduser()
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        also = "`demo`, `demo:all`, `demo:N`, hf:REPO/CONFIG/SPLIT or "
        raise MismatchError(
            f"{also if option == parameter('questions') else ''}a {FORMATS} file",
            f"`{name}`",
            FIXES.get(path.suffix.lower(), "rename or convert the file"),
        ).at(option)
    if not path.is_file():
        got = "a folder" if path.is_dir() else "no such file"
        raise MismatchError(f"the file `{name}`", got, "check the path").at(option)
    if reader is not Parquet:
        check_is_text(path, option)
    return reader(path)


def check_is_text(path: Path, option: str) -> None:
    """Refuse a file that is no text in an encoding that has ASCII in it.

    Raises:
        InputError: it begins as another kind of file does, or cannot be read.
    """
    try:
        with path.open("rb") as file:
            head = file.read(HEAD)
    except OSError as error:
        raise MismatchError("a file that can be read", f"{error.strerror or error}", "check it").at(
            path.name
        ) from None
    found = next((about for magic, about in MAGIC.items() if head.startswith(magic)), None)
    if found is None and head.count(0) > len(head) // 4:
        found = UTF_16
    if found is not None:
        got, fix = found
        raise MismatchError("text in UTF-8", got, fix).at(f"{path.name} ({option})")
