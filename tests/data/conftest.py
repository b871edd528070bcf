"""Builders of small data files."""

from __future__ import annotations

import csv
import gzip
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

# Read when `datasets` is first imported: no test may wait for a network.
os.environ.setdefault("HF_DATASETS_OFFLINE", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

Write = Callable[..., str]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write rows under a name whose suffix picks the format; the path comes back as `load` takes it."""

    def _write(name: str, rows: list[Any]) -> str:
        path = tmp_path / name
        plain = path.with_name(name.removesuffix(".gz"))
        _WRITERS[plain.suffix](plain, rows)
        if plain != path:
            path.write_bytes(gzip.compress(plain.read_bytes()))
            plain.unlink()
        return str(path)

    return _write


@pytest.fixture
def write_bytes(tmp_path: Path) -> Write:
    """Write a file byte by byte."""

    def _write(name: str, content: bytes) -> str:
        (tmp_path / name).write_bytes(content)
        return str(tmp_path / name)

    return _write


def _write_jsonl(path: Path, rows: list[Any]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def _write_json(path: Path, rows: list[Any]) -> None:
    path.write_text(json.dumps(rows, indent=1), encoding="utf-8")


def _write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    """As a spreadsheet would: a list becomes its JSON text."""
    with path.open("w", encoding="utf-8", newline="") as handle:
        writer = csv.DictWriter(handle, list(dict.fromkeys(key for row in rows for key in row)))
        writer.writeheader()
        for row in rows:
            writer.writerow({k: json.dumps(v) if isinstance(v, list) else v for k, v in row.items()})


def _write_parquet(path: Path, rows: list[dict[str, Any]]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = dict.fromkeys(key for row in rows for key in row)
    pq.write_table(pa.table({name: [row.get(name) for row in rows] for name in names}), path)


_WRITERS = {".jsonl": _write_jsonl, ".json": _write_json, ".csv": _write_csv, ".parquet": _write_parquet}
