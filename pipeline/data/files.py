"""Reading files row by row. A row comes with its place; an unreadable one as the `BadRow` that says why.

JSON lines are decoded here, so that the line number is always the file's own. CSV and Parquet are left to
`datasets`, in streaming mode: nothing is copied into its cache.
"""

from __future__ import annotations

import csv
import difflib
import glob
import gzip
import hashlib
import json
import shutil
import tempfile
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

from pipeline.data.rows import BadRow, DataError, Reason

Record = tuple[str, dict[str, Any] | BadRow]
Records = Generator[Record, None, None]

_BOM = b"\xef\xbb\xbf"
_SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".parquet")


def looks_like_file(source: str) -> bool:
    """Whether the name can only mean a file: a data suffix, or anything but the hub's ``owner/name``."""
    name = source.removesuffix(".gz")
    return source != name or name.endswith(_SUFFIXES) or name.startswith((".", "~")) or name.count("/") != 1


def find_file(source: str, base_dir: Path | None) -> Path | None:
    """Resolve a path against the working directory, then `base_dir`; None if neither has it."""
    candidates = _candidates(source, base_dir)
    found = next((path for path in candidates if path.is_file()), None)
    folder = next((path for path in candidates if path.is_dir()), None)
    if found is None and folder is not None:
        raise DataError(f"{folder} is a folder. Fix: name one file in it.")
    return found


def missing_file(source: str, base_dir: Path | None) -> DataError:
    """The error for a file that is nowhere: what was looked for, and what lies there under a similar name."""
    candidates = _candidates(source, base_dir)
    near: dict[str, None] = {}
    for path in candidates:
        names = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
        near |= {str(path.parent / name): None for name in difflib.get_close_matches(path.name, names)}
    hint = f" Did you mean {' or '.join(near)}?" if near else " Fix: correct the path."
    return DataError(f"no data file at {' or '.join(map(str, candidates))}.{hint}")


def file_sha256(path: Path) -> str:
    """SHA-256 of the file as it lies on disk, compressed or not, as ``sha256sum`` prints it."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def read_file(path: Path) -> Records:
    """Yield the rows of one file in order.

    Places are ``name:line`` for JSON lines and CSV, and ``name:row`` (from 1) for Parquet and JSON arrays.

    Raises:
        DataError: If the suffix is unknown, or the file as a whole cannot be decoded.
    """
    readers = {".jsonl": _read_lines, ".ndjson": _read_lines, ".json": _read_json}
    readers |= {".csv": _read_csv, ".parquet": _read_parquet}
    suffix = Path(path.name.removesuffix(".gz")).suffix
    if suffix not in readers:
        raise DataError(f"{path} has an unknown suffix. Fix: use {', '.join(_SUFFIXES)}, each also with .gz.")
    try:
        yield from readers[suffix](path)
    # Four libraries read here, each with exceptions of its own for a damaged file; they all mean the same.
    except Exception as error:
        first_line = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise DataError(f"{path} cannot be read as {suffix[1:]}: {first_line}. Fix: repair the file.") from None


def _read_lines(path: Path) -> Iterator[Record]:
    with _open(path) as handle:
        yield from _decode_lines(handle, path.name)


def _read_json(path: Path) -> Iterator[Record]:
    """A JSON array of rows; anything else under this suffix is taken as JSON lines, as the hub does."""
    with _open(path) as handle:
        content = handle.read().removeprefix(_BOM)
    if not content.lstrip().startswith(b"["):
        yield from _decode_lines(content.split(b"\n"), path.name)
        return
    try:
        rows = json.loads(content)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    for number, row in enumerate(rows, start=1):
        yield f"{path.name}:{number}", _as_fields(row)


def _decode_lines(lines: Iterable[bytes], name: str) -> Iterator[Record]:
    for number, line in enumerate(lines, start=1):
        if number == 1:
            line = line.removeprefix(_BOM)
        if line.strip():
            yield f"{name}:{number}", _decode(line)


def _decode(line: bytes) -> dict[str, Any] | BadRow:
    try:
        return _as_fields(json.loads(line.decode("utf-8")))
    except (ValueError, RecursionError) as error:
        return BadRow(Reason.NOT_JSON, str(error))


def _as_fields(row: Any) -> dict[str, Any] | BadRow:
    if isinstance(row, str):
        return {"prompt": row}  # the plainest list of prompts: one JSON string a line
    if isinstance(row, dict):
        return cast(dict[str, Any], row)
    return BadRow(Reason.WRONG_TYPE, f"the row is {type(row).__name__} where an object was expected")


def _read_csv(path: Path) -> Iterator[Record]:
    import datasets

    with _plain_copy(path) as plain:
        with plain.open(encoding="utf-8-sig", newline="") as handle:
            header = csv.reader(handle)
            names = next(header, None)
            line = header.line_num + 1
        if names is None:
            return
        if not names:
            raise ValueError("the first line is blank where the column names were expected")
        # Everything is text: guessed types would turn the answer "007" into 7, and "NA" into nothing.
        # Blank lines are asked for, so that the line number can be counted along.
        text = datasets.Features({name: datasets.Value("string") for name in names})
        options = {"features": text, "keep_default_na": False, "skip_blank_lines": False}
        for row in _stream("csv", plain, **options):
            if any(row.values()):
                yield f"{path.name}:{line}", row
            line += 1 + sum(value.count("\n") for value in row.values() if value)


def _read_parquet(path: Path) -> Iterator[Record]:
    with _plain_copy(path) as plain:
        for number, row in enumerate(_stream("parquet", plain), start=1):
            yield f"{path.name}:{number}", row


def _stream(builder: str, path: Path, **options: Any) -> Iterator[dict[str, Any]]:
    import datasets

    yield from datasets.load_dataset(builder, data_files=str(path), split="train", streaming=True, **options)


@contextmanager
def _plain_copy(path: Path) -> Iterator[Path]:
    """The file itself, or a temporary copy where it is packed or its name would be read as a pattern."""
    if path.suffix != ".gz" and not glob.has_magic(str(path)):
        yield path.resolve()
        return
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / f"data{Path(path.name.removesuffix('.gz')).suffix}"
        with _open(path) as packed, copy.open("wb") as target:
            shutil.copyfileobj(packed, target)
        yield copy


def _open(path: Path) -> BinaryIO:
    return cast(BinaryIO, gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb"))


def _candidates(source: str, base_dir: Path | None) -> list[Path]:
    path = Path(source).expanduser()
    if path.is_absolute() or base_dir is None:
        return [path]
    return [path, base_dir / path]
