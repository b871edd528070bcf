"""A person at the board: moves, refusals, the search's view, and how a game ends."""

import json
from collections.abc import Iterator
from io import StringIO
from typing import Any

import numpy as np
from rich.console import Console

from pipeline.games import make_game
from pipeline.rl.search import Puct
from pipeline.selfplay.board import as_json, for_people, play_game, views
from pipeline.selfplay.players import SearchPlayer
from tests.games.builders import after
from tests.selfplay.builders import EvenJudge

GAME = make_game("tic_tac_toe")


def player(simulations: int = 60) -> SearchPlayer:
    return SearchPlayer(GAME, EvenJudge(GAME), Puct(), simulations, np.random.default_rng(0))


def played(moves: str, *, begin: bool = True, simulations: int = 60) -> tuple[int | None, list[dict[str, Any]]]:
    lines: Iterator[str] = iter(moves.split())
    events: list[dict[str, Any]] = []
    result = play_game(GAME, player(simulations), begin=begin, ask=lambda: next(lines, None), tell=events.append)
    return result, events


def test_every_move_comes_with_its_view() -> None:
    _, events = played("b2")
    moves = [event for event in events if "player" in event]
    assert [event["player"] for event in moves] == ["you", "agent"]
    assert moves[0]["move"] == "b2"
    for event in moves:
        shares = [view["share"] for view in event["views"]]
        assert abs(sum(shares) - 1) < 1e-3
        assert shares == sorted(shares, reverse=True)
        assert all(view["line"][0] == view["move"] and -1 <= view["value"] <= 1 for view in event["views"])
    assert moves[1]["move"] == moves[1]["views"][0]["move"]


def test_it_begins_if_asked() -> None:
    _, events = played("", begin=False)
    assert [event["player"] for event in events if "player" in event] == ["agent"]


def test_a_game_ends_with_its_result() -> None:
    """A person who doesn't look is beaten; the last event says so."""
    result, events = played("a1 b1 a2 b3 c2 a3 c1 c3", begin=False, simulations=300)
    assert result == -1
    assert events[-1] == {"result": -1}


def test_a_person_can_win() -> None:
    """Against one simulation a move, which sees nothing."""
    result, events = played("c3 b3 a3 c2 b2 a2 c1 b1 a1", simulations=1)
    assert result == 1
    assert events[-1] == {"result": 1}


def test_illegal_moves_are_asked_again() -> None:
    result, events = played("b2 b2 z9 4", simulations=10)
    assert result is None
    refused = [event["refused"] for event in events if "refused" in event]
    assert refused[0].startswith("'b2' is no legal move here; there are ")
    assert len(refused) == 3


def test_a_move_nobody_looked_at_has_no_view() -> None:
    trees = player(3).search(GAME.start(1))
    assert len(views(GAME, trees)) == 3


def test_a_winning_move_is_seen() -> None:
    (best, *_) = views(GAME, player(200).search(after(GAME, "a1 b2 b1 c3")))
    assert (best.move, best.value, best.line) == ("c1", 1.0, ["c1"])


def test_json_is_a_line_an_event() -> None:
    lines: list[str] = []
    play_game(GAME, player(10), begin=True, ask=iter(["b2", None]).__next__, tell=as_json(lines.append))
    kinds = [next(iter(json.loads(line))) for line in lines]
    assert kinds == ["board", "player", "board", "player", "board"]


def test_people_see_board_table_and_sentences() -> None:
    console = Console(file=StringIO(), width=100)
    tell = for_people(console)
    play_game(GAME, player(30), begin=True, ask=iter(["b9", "b2", None]).__next__, tell=tell)
    for result in (1, 0, -1):
        tell({"result": result})
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert " 2 · X ·" in shown
    assert "'b9' is no legal move here" in shown
    assert "what may follow" in shown
    assert "you: b2 (the search: " in shown
    assert shown.split()[-6:] == ["You", "win.", "A", "draw.", "It", "wins."]
