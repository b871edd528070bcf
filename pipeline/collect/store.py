"""Where labels lie: one SQLite file with the pairs, every view of them, and a log of verdicts that only grows.

Write-ahead logging lets others read while the server writes; `synchronous=FULL` flushes each commit to disk, so that
what was acknowledged survives a killed process and a power cut. Nothing is deleted: to undo is an event, too.
"""

import json
import sqlite3
import threading
from collections.abc import Container, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args

from pipeline.collect.errors import CollectError
from pipeline.collect.records import STRENGTHS, VERDICTS, Answer, Label, Pair, Side

ADJUDICATOR = "adjudicator"  # the annotator whose word settles what others disagree on

EVENT = (
    *("number", "kind", "at", "annotator", "pair", "view", "undoes"),
    *("verdict", "first", "seconds", "strength", "reasons"),
)
SCHEMA = """
CREATE TABLE IF NOT EXISTS pairs (number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, body TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS views (
  id TEXT PRIMARY KEY, pair TEXT NOT NULL REFERENCES pairs (id), annotator TEXT NOT NULL, tab TEXT NOT NULL,
  first TEXT NOT NULL CHECK (first IN ('a', 'b')), at TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS events (
  number INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT NOT NULL CHECK (kind IN ('label', 'undo')), at TEXT NOT NULL,
  annotator TEXT NOT NULL, pair TEXT NOT NULL REFERENCES pairs (id), view TEXT UNIQUE REFERENCES views (id),
  undoes INTEGER UNIQUE REFERENCES events (number),
  verdict TEXT, first TEXT, seconds REAL, strength INTEGER, reasons TEXT
);
CREATE INDEX IF NOT EXISTS views_by_time ON views (at);
CREATE INDEX IF NOT EXISTS events_by_annotator ON events (annotator, number);
"""
APPEND_ONLY = """
CREATE TRIGGER IF NOT EXISTS {table}_keep_{what} BEFORE {what} ON {table}
BEGIN SELECT RAISE(ABORT, '{table} only grows'); END;
"""


@dataclass(frozen=True)
class View:
    """One showing of a pair to an annotator in a browser's tab: which answer stood first, and when (ISO 8601, UTC)."""

    id: str
    pair: str
    annotator: str
    tab: str
    first: Side
    at: str


def labels_path(run: Path) -> Path:
    """Where a run's labels lie."""
    return run / "collect" / "labels.sqlite"


def now() -> str:
    """The time in ISO 8601, UTC, to the millisecond."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


class Store:
    """The pairs and labels of one file; safe to use from several threads, and beside other processes.

    Args:
        path: the file; made where there is none, with its folder.

    Raises:
        CollectError: it can't be opened, or is no store of labels.
    """

    def __init__(self, path: Path) -> None:
        self.path, self._lock, self._writing = path, threading.RLock(), False
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=30)
            self._db.executescript("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON;")
            tables = [APPEND_ONLY.format(table=table, what=what) for table in ("pairs", "views", "events")
                      for what in ("UPDATE", "DELETE")]  # fmt: skip
            self._db.executescript(SCHEMA + "".join(tables))
        except (OSError, sqlite3.Error) as error:
            raise CollectError(f"labels can't be kept in {path}: {error}") from None

    def close(self) -> None:
        """Close the file. Idempotent."""
        self._db.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """What is written in the block is on disk when it ends, or, after an error, not at all. Inner blocks join."""
        with self._lock:
            if self._writing:
                yield
                return
            self.begin()
            try:
                yield
            except BaseException:
                self.rollback()
                raise
            self.commit()

    def begin(self) -> None:
        """Start a transaction by hand; whoever does has the store for themselves until `commit` or `rollback`."""
        self._db.execute("BEGIN IMMEDIATE")
        self._writing = True

    def commit(self) -> None:
        """Flush it to disk; may be called from another thread. After an error nothing of it is kept."""
        try:
            self._db.execute("COMMIT")
        except sqlite3.Error:
            self.rollback()
            raise
        self._writing = False

    def rollback(self) -> None:
        """Forget it."""
        self._writing = False
        if self._db.in_transaction:
            self._db.execute("ROLLBACK")

    def _rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        with self._lock:
            return self._db.execute(query, values).fetchall()

    # ---- pairs ----------------------------------------------------------------------------------------------

    def add_pairs(self, pairs: Iterable[Pair]) -> int:
        """Add those whose id isn't there yet; returns how many were new."""
        with self.transaction():
            before = self._db.total_changes
            for pair in pairs:
                body = json.dumps(asdict(pair), ensure_ascii=False)
                self._db.execute("INSERT OR IGNORE INTO pairs (id, body) VALUES (?, ?)", (pair.id, body))
            return self._db.total_changes - before

    def pairs(self) -> list[Pair]:
        """All pairs, in the order in which they were added."""
        return [_pair(json.loads(body)) for (body,) in self._rows("SELECT body FROM pairs ORDER BY number")]

    # ---- views ----------------------------------------------------------------------------------------------

    def add_view(self, view: View) -> None:
        """Record that a pair is shown, and in which order."""
        with self.transaction():
            self._db.execute(
                "INSERT INTO views VALUES (?, ?, ?, ?, ?, ?)",
                (view.id, view.pair, view.annotator, view.tab, view.first, view.at),
            )

    def view(self, id: str) -> View | None:
        """The view of that id."""
        rows = self._rows("SELECT id, pair, annotator, tab, first, at FROM views WHERE id = ?", id)
        return View(*rows[0]) if rows else None

    def answered(self, view: str) -> bool:
        """Whether a view has had its answer, undone or not."""
        return bool(self._rows("SELECT 1 FROM events WHERE view = ?", view))

    def views(self, *, since: str = "", answered: bool | None = None) -> list[View]:
        """Views in order of time, from `since` on; only those with or without an answer, where told."""
        told = {None: "", True: "AND e.view IS NOT NULL", False: "AND e.view IS NULL"}[answered]
        columns = "v.id, v.pair, v.annotator, v.tab, v.first, v.at"
        query = (
            f"SELECT {columns} FROM views v LEFT JOIN events e ON e.view = v.id WHERE v.at >= ? {told} ORDER BY v.at"
        )
        return [View(*row) for row in self._rows(query, since)]

    # ---- labels ---------------------------------------------------------------------------------------------

    def add_label(self, label: Label, view: str | None = None) -> int:
        """Append a verdict, with the view that it answers where there was one; returns the event's number.

        Raises:
            CollectError: a verdict, an order or a strength that there isn't.
        """
        if label.verdict not in VERDICTS or label.first not in get_args(Side):
            raise CollectError(f"a verdict is one of {', '.join(VERDICTS)}, `first` is a or b; got {label.verdict!r}, "
                               f"{label.first!r}")  # fmt: skip
        if label.strength is not None and (label.strength not in STRENGTHS or label.verdict not in ("a", "b")):
            raise CollectError(f"strength is one of {STRENGTHS}, where a side won; got {label.strength!r}")
        given = (label.verdict, label.first, label.seconds, label.strength, json.dumps(label.reasons))
        with self.transaction():
            if not self._rows("SELECT 1 FROM pairs WHERE id = ?", label.pair.id):
                self.add_pairs([label.pair])
            return self._append("label", label.at, label.annotator, label.pair.id, view, None, *given)

    def undo(self, annotator: str, at: str, among: Container[str] | None = None) -> tuple[Label, str | None] | None:
        """Take back an annotator's latest standing verdict, on a pair whose id is `among` those told; returns it and
        its view, or None where there is none."""
        with self.transaction():
            found = self._standing(annotator).items()
            standing = [(number, given) for number, given in found if among is None or given[0].pair.id in among]
            if not standing:
                return None
            number, (label, view) = max(standing, key=lambda entry: entry[0])
            self._append("undo", at, annotator, label.pair.id, None, number, None, None, None, None, None)
            return label, view

    def labels(self, annotator: str | None = None) -> list[Label]:
        """Each annotator's (or one's) latest verdict on each pair, in order of time. What was undone is gone; where it
        stood in for an earlier verdict, that one holds again."""
        latest: dict[tuple[str, str], tuple[int, Label]] = {}
        for number, (label, _) in sorted(self._standing(annotator).items()):
            latest[label.pair.id, label.annotator] = (number, label)
        return [label for _, label in sorted(latest.values(), key=lambda entry: entry[0])]

    def events(self) -> list[dict[str, Any]]:
        """The whole log, undone verdicts and undoings too."""
        rows = self._rows(f"SELECT {', '.join(EVENT)} FROM events ORDER BY number")
        return [dict(zip(EVENT, row, strict=True)) for row in rows]

    def _append(self, *values: Any) -> int:
        marks = ", ".join("?" * len(values))
        number = self._db.execute(f"INSERT INTO events ({', '.join(EVENT[1:])}) VALUES ({marks})", values).lastrowid
        assert number is not None
        return number

    def _standing(self, annotator: str | None = None) -> dict[int, tuple[Label, str | None]]:
        """Verdicts that weren't undone, by their number, each with its view."""
        columns = "e.number, p.body, e.view, e.reasons, e.annotator, e.verdict, e.first, e.seconds, e.at, e.strength"
        query = f"""SELECT {columns}
          FROM events e JOIN pairs p ON p.id = e.pair LEFT JOIN events u ON u.undoes = e.number
          WHERE e.kind = 'label' AND u.number IS NULL AND (? IS NULL OR e.annotator = ?)"""
        rows = self._rows(query, annotator, annotator)
        known: dict[str, Pair] = {}
        found: dict[int, tuple[Label, str | None]] = {}
        for number, body, view, reasons, annotator, verdict, first, seconds, at, strength in rows:
            if body not in known:
                known[body] = _pair(json.loads(body))
            why = tuple(json.loads(reasons))
            found[number] = Label(known[body], annotator, verdict, first, seconds, at, strength, why), view
        return found


def _pair(body: dict[str, Any]) -> Pair:
    return Pair(body["id"], tuple(body["prompt"]), Answer(**body["a"]), Answer(**body["b"]), body["expected"])
