"""`load`: one call from a file or a hub data set to checked rows of the kind that a stage asks for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from pipeline.data.files import (
    Record,
    Records,
    file_sha256,
    find_file,
    looks_like_file,
    missing_file,
    read_file,
)
from pipeline.data.formats import Fields, parse, recognise
from pipeline.data.hub import open_hub
from pipeline.data.kinds import build, check_kind, check_serves, with_score_margin
from pipeline.data.rows import BadRow, BadRows, DataError, Policy, Reason
from pipeline.data.schema import Kind, Row

_PROBE = 32  # readable rows to look at before naming the schema; JSON rows may lack a column or two


@dataclass(frozen=True)
class Loaded:
    """Rows and where they came from.

    Attributes:
        rows: `Demonstration`, `Preference` or `Prompt` objects, in the order of the source.
        schema: The schema under which the source was read.
        sha256: Of the file's bytes; for a hub data set, its fingerprint.
        counts: ``read``, ``kept``, and one entry per reason for which rows were rejected.
    """

    rows: list[Any]
    schema: str
    sha256: str
    counts: dict[str, int]


def load(
    source: str,
    kind: Kind,
    *,
    schema: str = "auto",
    columns: Mapping[str, str] | None = None,
    split: str = "train",
    subset: str | None = None,
    limit: int | None = None,
    on_bad_row: Policy = "error",
    system: str | None = None,
    base_dir: Path | None = None,
    bad_rows: BadRows | None = None,
) -> Loaded:
    """Load a data set.

    Args:
        source: A path (relative ones are looked up in the working directory, then in `base_dir`) or a hub id.
        kind: What to make of the rows. A preference source also serves demonstrations (the chosen answers)
            and prompts, a demonstration source also prompts.
        schema: One of `formats.REQUIRED`, or ``"auto"`` to tell it from the columns.
        columns: Our column names to the source's, ``{"prompt": "question"}``. A row lacking one is bad.
        split: Hub only.
        subset: Hub only.
        limit: Stop after so many kept rows.
        on_bad_row: ``"error"`` stops at the first bad row, ``"skip"`` counts it. Unused with `bad_rows`.
        system: System turn for rows that have none.
        base_dir: Second place to look for a relative path.
        bad_rows: Collector to share between loads and later checks; its policy rules.

    Raises:
        DataError: If the source is missing, empty or cannot serve `kind`, at a bad row under ``"error"``, or
            if no row is left.
    """
    _check_options(kind, limit, system)
    bad_rows = BadRows(on_bad_row) if bad_rows is None else bad_rows
    before = Counter(bad_rows.counts)
    name, sha256, records = _open(source, split, subset, base_dir)
    with closing(records):
        head = _peek(records, name)
        columns = columns or {}
        schema = _choose_schema(head, schema, kind, columns, name)
        to_row = partial(_to_row, schema=schema, kind=kind, columns=columns, system=system)
        rows, read = _collect(chain(head, records), to_row, limit, bad_rows)
    counts = {"read": read, "kept": len(rows), **(bad_rows.counts - before)}
    if not rows:
        found = ", ".join(f"{reason} {count}" for reason, count in counts.items())
        raise DataError(f"{name}: no usable row is left ({found}). Fix: load it with on_bad_row: error to see why.")
    return Loaded(rows, schema, sha256, counts)


def _check_options(kind: str, limit: int | None, system: str | None) -> None:
    check_kind(kind)
    if limit is not None and limit < 1:
        raise DataError(f"limit = {limit} would keep no row. Fix: use a positive number, or none for all rows.")
    if system is not None and not system.strip():
        raise DataError("system is blank. Fix: write a system turn, or leave the option out.")


def _open(source: str, split: str, subset: str | None, base_dir: Path | None) -> tuple[str, str, Records]:
    path = find_file(source, base_dir)
    if path is None:
        if looks_like_file(source):
            raise missing_file(source, base_dir)
        return source, *open_hub(source, split, subset)
    if split != "train" or subset is not None:
        raise DataError(f"{path} is a file and has no splits or subsets. Fix: remove split and subset.")
    return path.name, file_sha256(path), read_file(path)


def _peek(records: Records, name: str) -> list[Record]:
    """The first rows of a source: enough to tell its columns, and the unreadable ones between them."""
    head: list[Record] = []
    readable = 0
    for record in records:
        head.append(record)
        readable += not isinstance(record[1], BadRow)
        if readable == _PROBE:
            break
    if not head:
        raise DataError(f"{name} is empty. Fix: give a file with at least one row.")
    return head


def _choose_schema(head: list[Record], schema: str, kind: Kind, columns: Mapping[str, str], name: str) -> str:
    found = [_prepare(fields, columns) for _, fields in head if not isinstance(fields, BadRow)]
    if not found:
        return schema  # not one readable row in the whole source: each will be rejected for its own reason
    present = list(dict.fromkeys(column for fields in found for column in fields))
    for ours, theirs in columns.items():
        if ours not in present:
            raise DataError(f"{name}: columns maps {ours!r} to {theirs!r}, not there; found {', '.join(present)}.")
    fullest = max(found, key=lambda fields: sum(value is not None for value in fields.values()))
    try:
        schema = recognise(present, fullest) if schema == "auto" else schema
        check_serves(schema, kind, present)
    except DataError as error:
        raise DataError(f"{name}: {error}") from None
    return schema


def _collect(
    records: Iterable[Record], to_row: Callable[[str, Fields], Row], limit: int | None, bad_rows: BadRows
) -> tuple[list[Row], int]:
    rows: list[Row] = []
    read = 0
    for where, fields in records:
        read += 1
        try:
            if isinstance(fields, BadRow):
                raise fields
            rows.append(to_row(where, fields))
        except BadRow as bad:
            reason, detail = bad.reason, bad.detail
        else:
            if len(rows) == limit:
                break
            continue
        # Outside the handler, so that a DataError shows no chain of exceptions.
        bad_rows.reject(where, reason, detail)
    return rows, read


def _to_row(
    where: str, fields: Fields, *, schema: str, kind: Kind, columns: Mapping[str, str], system: str | None
) -> Row:
    fields = _prepare(fields, columns)
    for ours, theirs in columns.items():
        if fields.get(ours) is None:
            raise BadRow(Reason.MISSING_FIELD, f"{theirs!r} (as {ours!r}) is absent or null")
    parsed = parse(schema, fields)
    return build(parsed, kind, where, fields, system)


def _prepare(fields: Fields, columns: Mapping[str, str]) -> dict[str, Any]:
    """Rename the source's columns to ours. A swap works too: all are taken out before any is put back."""
    fields = with_score_margin(fields)
    kept = {column: value for column, value in fields.items() if column not in columns.values()}
    return kept | {ours: fields[theirs] for ours, theirs in columns.items() if theirs in fields}
