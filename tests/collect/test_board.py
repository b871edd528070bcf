"""Whose turn a pair is: leases, overlap, planted pairs, order of views, undoing."""

from collections import Counter
from datetime import timedelta
from pathlib import Path

import pytest

from pipeline.collect import board as module
from pipeline.collect.asking import asking, at_random
from pipeline.collect.board import Board, Refused, verdict_of
from pipeline.collect.errors import CollectError
from pipeline.collect.plan import Plan
from pipeline.collect.records import Pair
from pipeline.collect.store import Store, labels_path

from .builders import pair, pairs


def new(path: Path, asked: list[Pair], *names: str, overlap: float = 0.0, check_rate: float = 0.1) -> Board:
    plan = Plan(names or ("anna",), overlap=overlap, check_rate=check_rate)
    return Board(Store(labels_path(path)), asked, at_random(0), plan)


def answer_all(board: Board, name: str, tab: str = "tab") -> list[str]:
    """Ids of the pairs that somebody was asked, to the end."""
    asked = []
    while view := board.next(name, tab):
        asked.append(view.pair)
        board.answer(name, view.id, "first", seconds=1.0)
    return asked


def test_every_pair_is_asked_once(tmp_path: Path) -> None:
    board = new(tmp_path, pairs(30))
    assert Counter(answer_all(board, "anna")) == Counter(f"pair-{number}" for number in range(30))
    assert board.progress("anna").left == 0


def test_two_tabs_never_show_the_same_pair_and_a_reload_shows_it_again(tmp_path: Path) -> None:
    board = new(tmp_path, pairs(3))
    views = [board.next("anna", tab) for tab in ("one", "two", "one", "two", "three")]
    assert views[0] == views[2]
    assert views[1] == views[3]
    assert len({view.pair for view in views if view}) == 3
    assert board.next("anna", "four") is None


def test_a_lease_expires_and_its_answer_still_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    board = new(tmp_path, pairs(1), "anna", "ben")
    hers = board.next("anna", "tab")
    assert hers is not None
    assert board.next("ben", "tab") is None
    monkeypatch.setattr(module, "LEASE", -timedelta(seconds=1))
    his = board.next("ben", "tab")
    assert his is not None
    assert his.pair == hers.pair
    board.answer("anna", hers.id, "tie", seconds=1.0)
    assert [label.verdict for label in board.store.labels()] == ["tie"]


def test_the_shared_part_is_asked_of_everybody_and_the_rest_once(tmp_path: Path) -> None:
    board = new(tmp_path, pairs(40), "anna", "ben", "cleo", overlap=0.25)
    given: dict[str, list[str]] = {name: [] for name in board.people}
    going = set(given)
    while going:  # in turn
        for name in sorted(going):
            view = board.next(name, "tab")
            if view is None:
                going.discard(name)
                continue
            board.answer(name, view.id, "second", seconds=1.0)
            given[name].append(view.pair)
    times = Counter(id for ids in given.values() for id in ids)
    assert Counter(times.values()) == {1: 30, 3: 10}
    assert {id for id, count in times.items() if count == 3} == board.shared
    assert all(len(set(ids)) == len(ids) for ids in given.values())


def test_a_skipped_pair_goes_to_somebody_else(tmp_path: Path) -> None:
    board = new(tmp_path, pairs(1), "anna", "ben")
    view = board.next("anna", "tab")
    assert view is not None
    board.answer("anna", view.id, "skip", seconds=1.0)
    assert board.next("anna", "tab") is None
    assert answer_all(board, "ben") == ["pair-0"]


def test_planted_pairs_come_at_their_rate_to_everybody(tmp_path: Path) -> None:
    planted = [pair(number, expected="a") for number in range(100)]
    board = new(tmp_path, [*pairs(300), *planted], "anna", "ben", overlap=1.0, check_rate=0.2)
    asked = [answer_all(board, name) for name in ("anna", "ben")]
    for ids in asked:
        checks = sum(id.startswith("check") for id in ids)
        assert 300 * 0.2 / 0.8 - 25 < checks < 300 * 0.2 / 0.8 + 25  # three standard deviations about 75
    assert asked[0] != asked[1]
    none = new(tmp_path / "none", [*pairs(30), *planted], check_rate=0.0)
    assert not any(id.startswith("check") for id in answer_all(none, "anna"))


def test_the_order_is_random_recorded_and_balanced(tmp_path: Path) -> None:
    board = new(tmp_path, pairs(400))
    answer_all(board, "anna")
    views = {view.pair: view.first for view in board.store.views()}
    assert {label.pair.id: label.first for label in board.store.labels()} == views
    assert 160 < Counter(views.values())["a"] < 240  # four standard deviations
    # She always chose what stood first: the verdicts are what stood there.
    assert {label.pair.id: label.verdict for label in board.store.labels()} == views


def test_a_choice_by_place_becomes_a_verdict_on_a_side() -> None:
    assert [verdict_of(choice, "a") for choice in ("first", "second", "tie", "both_bad", "skip")] == [
        *("a", "b", "tie", "both_bad", "skip")
    ]
    assert [verdict_of(choice, "b") for choice in ("first", "second", "tie")] == ["b", "a", "tie"]


def test_undo_shows_the_same_pair_in_the_same_order(tmp_path: Path) -> None:
    board = new(tmp_path, pairs(5))
    first = board.next("anna", "tab")
    assert first is not None
    board.answer("anna", first.id, "first", seconds=2.0)
    second = board.next("anna", "tab")
    assert second is not None
    again = board.undo("anna", "tab")
    assert again is not None
    assert (again.pair, again.first) == (first.pair, first.first)
    assert again.id != first.id
    assert board.progress("anna").done == 0
    assert board.next("anna", "tab") == again  # what was on the screen waits
    board.answer("anna", again.id, "second", seconds=2.0)
    assert [label.verdict for label in board.store.labels()] == [verdict_of("second", first.first)]
    assert len(answer_all(board, "anna")) == 4


def test_what_is_taken_back_is_open_again_for_others(tmp_path: Path) -> None:
    board = new(tmp_path, pairs(1), "anna", "ben")
    answer_all(board, "anna")
    assert board.next("ben", "tab") is None
    again = board.undo("anna", "tab")
    assert again is not None
    assert board.next("ben", "tab") is None  # it is on her screen
    board.answer("anna", again.id, "skip", seconds=1.0)
    assert answer_all(board, "ben") == ["pair-0"]
    assert board.undo("anna", "tab") is not None
    assert board.undo("anna", "tab") is None


def test_the_same_answer_twice_is_one_and_others_views_are_refused(tmp_path: Path) -> None:
    board = new(tmp_path, pairs(2), "anna", "ben")
    view = board.next("anna", "tab")
    assert view is not None
    for name, id in (("ben", view.id), ("anna", "made up")):
        with pytest.raises(Refused, match="isn't open any more"):
            board.answer(name, id, "first", seconds=1.0)
    for _ in range(2):
        board.answer("anna", view.id, "first", seconds=1.0)
    assert len(board.store.events()) == 1


def test_a_new_board_goes_on_where_the_last_one_stopped(tmp_path: Path) -> None:
    asked = [*pairs(10), pair(0, expected="b")]
    board = new(tmp_path, asked, "anna", "ben", overlap=0.5)
    for _ in range(4):
        view = board.next("anna", "tab")
        assert view is not None
        board.answer("anna", view.id, "first", seconds=3.0)
    shown = board.next("anna", "tab")
    again = new(tmp_path, asked, "anna", "ben", overlap=0.5)
    assert again.next("anna", "tab") == shown  # the lease, too
    assert (again.given, again.open, again.labels) == (board.given, board.open, board.labels)
    assert again.progress("anna") == board.progress("anna")


def test_seconds_are_what_the_page_counted_but_no_more_than_passed(tmp_path: Path) -> None:
    board = new(tmp_path, pairs(1))
    view = board.next("anna", "tab")
    assert view is not None
    board.answer("anna", view.id, "first", seconds=1e9)
    assert board.store.labels()[0].seconds < 5


def test_the_strategy_is_asked_again_as_labels_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REORDER_EVERY", 3)
    seen = []

    def backwards(pairs: object, labels: object) -> list[str]:
        seen.append(len(labels))  # type: ignore[arg-type]
        return ["pair-9", "unknown", "pair-8"]  # what it leaves out comes last

    board = Board(Store(labels_path(tmp_path)), pairs(10), backwards, Plan(("anna",)))
    assert answer_all(board, "anna") == ["pair-9", "pair-8", *(f"pair-{number}" for number in range(8))]
    assert seen == [0, 3, 6, 9]


def test_random_order_is_fixed_by_its_seed() -> None:
    some = pairs(50)
    orders = [list(asking("random", seed, Path())(some, [])) for seed in (0, 0, 1)]
    assert orders[0] == orders[1] != orders[2]
    assert list(at_random(0)(some[::-1], [])) == orders[0]
    with pytest.raises(CollectError, match="--ask best: there is only "):
        asking("best", 0, Path())
