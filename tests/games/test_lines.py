"""Rules on bits against rules on a plain board, move by move; and positions that one can check by eye."""

import numpy as np
import pytest

from pipeline.games import GAMES, GameError, LineGame, find_action, make_game
from tests.games.builders import after

SIZES = [
    {"rows": 3, "columns": 3, "length": 3},
    {"rows": 6, "columns": 7, "length": 4, "gravity": True},
    {"rows": 7, "columns": 7, "length": 5},
    {"rows": 2, "columns": 6, "length": 3},
    {"rows": 4, "columns": 5, "length": 2, "gravity": True},
]


def has_line(board: np.ndarray, player: int, length: int) -> bool:
    rows, columns = board.shape
    for row in range(rows):
        for column in range(columns):
            for down, across in ((0, 1), (1, 0), (1, 1), (1, -1)):
                cells = [(row + i * down, column + i * across) for i in range(length)]
                if all(0 <= r < rows and 0 <= c < columns and board[r, c] == player for r, c in cells):
                    return True
    return False


@pytest.mark.parametrize("size", SIZES)
def test_bits_agree_with_a_plain_board(size: dict[str, int]) -> None:
    game, rng = LineGame("game", **size), np.random.default_rng(0)  # type: ignore[arg-type]
    for _ in range(25):
        board, state, mover, over = np.zeros((size["rows"], size["columns"]), int), game.start(1), 1, False
        while not over:
            free = (board == 0).any(axis=0) if size.get("gravity") else (board == 0).ravel()
            assert game.legal(state)[0].tolist() == free.tolist()
            action = int(rng.choice(np.flatnonzero(free)))
            if size.get("gravity"):
                board[np.flatnonzero(board[:, action] == 0)[0], action] = mover
            else:
                board.flat[action] = mover
            state, mover = game.play(state, np.array([action])), -mover
            won, full = has_line(board, -mover, size["length"]), bool((board != 0).all())
            over, values = bool(game.outcome(state)[0][0]), game.outcome(state)[1]
            assert over == (won or full)
            assert values[0] == (-1 if won else 0)
            planes = game.planes(state)[0]
            assert (planes[0] == (board == mover)).all()
            assert (planes[1] == (board == -mover)).all()
            assert (planes[2] == mover).all()


def test_many_positions_are_as_good_as_one() -> None:
    game = make_game("connect_four")
    states = np.concatenate([after(game, moves) for moves in ("1 1", "1 2 1 2 1 2 1", "4 4 4 4 4 4")])
    assert game.outcome(states)[0].tolist() == [False, True, False]
    assert game.outcome(states)[1].tolist() == [0, -1, 0]
    assert game.legal(states)[2].tolist() == [True, True, True, False, True, True, True]


@pytest.mark.parametrize(
    ("name", "moves", "over"),
    [
        ("tic_tac_toe", "a1 b1 a2 b2 a3", True),
        ("tic_tac_toe", "a1 b1 b2 a2 c3", True),
        ("tic_tac_toe", "c1 b1 b2 a2 a3", True),
        ("connect_four", "1 2 2 3 3 4 3 4 4 6 4", True),  # up to the right
        ("connect_four", "7 6 6 5 5 4 5 4 4 2 4", True),  # and to the left
        ("connect_four", "1 2 2 3 3 4 3 4 4 6 5", False),
        ("connect_four", "1 1 2 2 3 3 5 5 6 6 7", False),  # three and three with a hole
        ("connect_four", "4 1 5 1 6 1 2 2", False),  # 4, 5, 6 at the right edge don't go on in the row above
        ("gomoku", "a1 a7 b1 b7 c1 c7 d1 d7 e1", True),
        ("gomoku", "c1 a7 d1 b7 e1 c7 f1 d7 a2 e7", True),
    ],
)
def test_lines_by_eye(name: str, moves: str, over: bool) -> None:
    game = make_game(name)
    assert game.outcome(after(game, moves))[0][0] == over


def test_a_full_board_is_a_draw() -> None:
    game = make_game("tic_tac_toe")
    state = after(game, "a1 b1 c1 b2 a2 c2 b3 a3 c3")
    over, value = game.outcome(state)
    assert over[0]
    assert value[0] == 0


@pytest.mark.parametrize("name", GAMES)
def test_symmetries_turn_game_and_picture_alike(name: str) -> None:
    """Playing the turned moves leads to the turned picture, and is worth the same."""
    game, rng = make_game(name), np.random.default_rng(1)
    assert len(game.symmetries) == (2 if name == "connect_four" else 8)
    assert (game.symmetries[0].actions == np.arange(game.actions)).all()
    assert len({tuple(one.cells) for one in game.symmetries}) == len(game.symmetries)
    for symmetry in game.symmetries:
        here, there = game.start(1), game.start(1)
        while True:
            assert (game.legal(there)[0] == game.legal(here)[0][symmetry.actions]).all()
            turned = int(rng.choice(np.flatnonzero(game.legal(there)[0])))
            here = game.play(here, symmetry.actions[[turned]])
            there = game.play(there, np.array([turned]))
            flat = game.planes(here).reshape(3, -1)[:, symmetry.cells]
            assert (game.planes(there).reshape(3, -1) == flat).all()
            assert [part[0] for part in game.outcome(here)] == [part[0] for part in game.outcome(there)]
            if game.outcome(here)[0][0]:
                break


def test_labels_and_pictures() -> None:
    game = make_game("tic_tac_toe")
    assert [game.label(action) for action in (0, 1, 3, 8)] == ["a1", "b1", "a2", "c3"]
    assert game.show(after(game, "b2 c3")[0]).splitlines() == [" 3 · · O", " 2 · X ·", " 1 · · ·", "   a b c"]
    four = make_game("connect_four")
    assert four.show(after(four, "4 4 1")[0]).splitlines()[-3:] == [
        "   · · · O · · ·",
        "   X · · X · · ·",
        "   1 2 3 4 5 6 7",
    ]


def test_illegal_moves_are_one_sentence() -> None:
    game = make_game("tic_tac_toe")
    with pytest.raises(GameError, match="'b2' is no legal move here; there are a1 b1 c1 a2 c2 a3 b3 c3"):
        find_action(game, after(game, "b2")[0], "b2")
    assert find_action(game, game.start(1)[0], " B2 ") == 4


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("conect_four", {}, "did you mean connect_four"),
        ("chess", {}, "known: tic_tac_toe"),
        ("gomoku", {"rows": 20}, "don't fit"),
        ("gomoku", {"length": 9}, "no line of 9 fits"),
        ("gomoku", {"size": 9}, "doesn't take these options"),
    ],
)
def test_bad_games_are_one_sentence(name: str, options: dict[str, int], words: str) -> None:
    with pytest.raises(GameError, match=words):
        make_game(name, options)
