"""The file of labels: nothing is lost, nothing is deleted, the latest word counts."""

import os
import signal
import sqlite3
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.collect.errors import CollectError
from pipeline.collect.store import Store, View, labels_path

from .builders import label, pair, pairs


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(labels_path(tmp_path))


def test_pairs_come_back_as_they_were_and_once(store: Store) -> None:
    hostile = replace(pair(1), prompt=({"role": "system", "content": "Be \u202e kind\x00"}, *pair(1).prompt))
    assert store.add_pairs([hostile, pair(2, expected="b")]) == 2
    assert store.add_pairs([replace(hostile, a=hostile.b), pair(3)]) == 1  # by id: the one that is there stays
    assert store.pairs() == [hostile, pair(2, expected="b"), pair(3)]


def test_the_latest_verdict_counts_and_an_undone_one_does_not(store: Store) -> None:
    one, two = pairs(2)
    store.add_label(label(one, "anna", "a", 1))
    store.add_label(label(two, "anna", "tie", 2))
    store.add_label(label(one, "ben", "b", 3))
    store.add_label(label(one, "anna", "b", 4))
    assert store.labels() == [label(two, "anna", "tie", 2), label(one, "ben", "b", 3), label(one, "anna", "b", 4)]
    assert store.undo("anna", "later") == (label(one, "anna", "b", 4), None)
    assert store.labels() == [label(one, "anna", "a", 1), label(two, "anna", "tie", 2), label(one, "ben", "b", 3)]
    assert store.undo("anna", "later") == (label(two, "anna", "tie", 2), None)
    assert store.undo("anna", "later") == (label(one, "anna", "a", 1), None)
    assert store.undo("anna", "later") is None
    assert store.labels() == [label(one, "ben", "b", 3)]
    kinds = [event["kind"] for event in store.events()]
    assert kinds == ["label"] * 4 + ["undo"] * 3  # all of it stays on record


@pytest.mark.parametrize("table", ["pairs", "views", "events"])
def test_the_log_only_grows(store: Store, table: str) -> None:
    store.add_pairs(pairs(1))
    store.add_view(View("v", "pair-0", "anna", "tab", "a", "2026"))
    store.add_label(label(pair(0), "anna", "a"), "v")
    with sqlite3.connect(store.path) as other:
        for change in (f"DELETE FROM {table}", f"UPDATE {table} SET rowid = rowid + 1"):
            with pytest.raises(sqlite3.IntegrityError, match=f"{table} only grows"):
                other.execute(change)


def test_it_is_flushed_and_read_beside_the_writer(store: Store) -> None:
    settings = [store._rows(f"PRAGMA {name}")[0][0] for name in ("journal_mode", "synchronous", "foreign_keys")]
    assert settings == ["wal", 2, 1]  # 2 = FULL: each commit is on disk
    reader = Store(store.path)
    with store.transaction():
        store.add_label(label(pair(0), "anna", "a"))
        assert reader.labels() == []
    assert reader.labels() == [label(pair(0), "anna", "a")]


def test_an_error_takes_the_whole_transaction_back(store: Store) -> None:
    def half_wrong() -> None:
        with store.transaction():
            store.add_label(label(pair(0), "anna", "a"))
            store.add_label(replace(label(pair(1), "anna", "a"), strength=9))

    with pytest.raises(CollectError):
        half_wrong()
    assert store.labels() == store.pairs() == []


def test_views_are_kept_with_their_order(store: Store) -> None:
    store.add_pairs(pairs(2))
    first, second = (
        View("v", "pair-0", "anna", "tab", "b", "2026-01"),
        View("w", "pair-1", "ben", "tab", "a", "2026-02"),
    )
    store.add_view(second)
    store.add_view(first)
    store.add_label(label(pair(1), "ben", "a"), "w")
    assert store.view("v") == first
    assert store.view("x") is None
    assert store.views() == [first, second]
    assert store.views(since="2026-02") == store.views(answered=True) == [second]
    assert store.views(answered=False) == [first]
    assert [store.answered(id) for id in "vw"] == [False, True]
    with pytest.raises(sqlite3.IntegrityError):  # one answer a view
        store.add_label(label(pair(1), "ben", "b"), "w")


def test_what_is_no_verdict_is_refused(store: Store) -> None:
    good = label(pair(0), "anna", "a")
    for wrong in ({"verdict": "c"}, {"first": "c"}, {"strength": 4}, {"verdict": "tie", "strength": 1}):
        with pytest.raises(CollectError):
            store.add_label(replace(good, **wrong))
    assert store.labels() == []


def test_no_store_is_told(tmp_path: Path) -> None:
    labels_path(tmp_path).parent.mkdir()
    labels_path(tmp_path).write_text("something else altogether\n" * 100)
    with pytest.raises(CollectError, match=r"labels can't be kept in .*labels\.sqlite: file is not a database"):
        Store(labels_path(tmp_path))


def test_a_killed_writer_loses_nothing_that_it_acknowledged(store: Store) -> None:
    program = """
import sys
from pathlib import Path
from pipeline.collect.store import Store
from tests.collect.builders import label, pair
store = Store(Path(sys.argv[1]))
for number in range(10**6):
    store.add_label(label(pair(number), "anna", "a", number))
    print(number, flush=True)
"""
    writer = subprocess.Popen([sys.executable, "-c", program, store.path], stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    told = [int(writer.stdout.readline()) for _ in range(30)]
    os.kill(writer.pid, signal.SIGKILL)
    told += [int(line) for line in writer.stdout]
    writer.wait()
    kept = [int(label.pair.id.removeprefix("pair-")) for label in store.labels()]
    assert kept[: len(told)] == told
    assert len(kept) - len(told) <= 1  # written, not yet told
