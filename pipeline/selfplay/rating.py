"""How strong it is: against random play, plain tree search and perfect play, and beside its earlier selves."""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.config import AlphaZeroConfig
from pipeline.evaluation.intervals import mean_interval, wilson
from pipeline.evaluation.ratings import Rating, ratings
from pipeline.games import Game
from pipeline.selfplay.arena import Match, match
from pipeline.selfplay.network import NetworkJudge
from pipeline.selfplay.players import PerfectPlayer, Player, RandomPlayer, SearchPlayer, playout_player
from pipeline.selfplay.training import EVALUATION, OPENING, load_network, plays, random_numbers, rule, weights_path

SOLVABLE = 9  # cells of a board on which every game can be looked at
Advance = Callable[[], None]


def opponents(game: Game, config: AlphaZeroConfig, rng: np.random.Generator) -> dict[str, Player]:
    """By name, whom the network that plays meets: "perfect" only in games small enough."""
    found: dict[str, Player] = {
        "random": RandomPlayer(game, rng),
        f"mcts{config.opponent_simulations}": playout_player(game, config.opponent_simulations, rng),
    }
    _, height, width = game.shape
    return found | ({"perfect": PerfectPlayer(game, rng)} if height * width <= SOLVABLE else {})


def player_of(game: Game, config: AlphaZeroConfig, folder: Path, generation: int, *, opening: int = 0) -> SearchPlayer:
    """A generation as it plays: its network's search, without noise."""
    network = load_network(game, config, weights_path(folder, generation))
    judge = NetworkJudge(game, network, precision=config.precision)
    rng = random_numbers(config, generation, EVALUATION)
    return SearchPlayer(game, judge, rule(config), config.evaluation_simulations, rng, opening=opening)


def strength(game: Game, config: AlphaZeroConfig, folder: Path, advance: Advance) -> tuple[dict[str, Any], Match]:
    """Figures of the matches of the generation that plays under dotted names, and its match with plain tree search.

    It plays the move with most visits; games differ by the opponent's moves. `score` counts a draw as a half and has
    `mean_interval`'s 95 %; `win_rate`, of won games, has Wilson's.
    """
    figures: dict[str, Any] = {}
    kept = None
    for name, opponent in opponents(game, config, random_numbers(config, 0, EVALUATION)).items():
        one = player_of(game, config, folder, plays(folder))
        found = match(game, one, opponent, config.evaluation_games)
        kept = found if name.startswith("mcts") else kept
        row = found.figures()
        won = int((found.results > 0).sum())
        row["score_low"], row["score_high"] = mean_interval(found.scores)
        row["win_rate"] = won / len(found.results)
        row["win_low"], row["win_high"] = wilson(won, len(found.results))
        figures |= {f"{name}.{key}": value for key, value in row.items()}
        advance()
    assert kept is not None
    return figures, kept


def first_move(game: Game, config: AlphaZeroConfig, folder: Path) -> str:
    """What the generation that plays does when a game begins."""
    visits = player_of(game, config, folder, plays(folder)).search(game.start(1)).visits[0]
    return game.label(int(visits.argmax()))


def rated(config: AlphaZeroConfig, folder: Path) -> list[int]:
    """The generations that get a rating: the untrained one, the last, some spread evenly between, and who plays."""
    spread = np.linspace(0, config.generations, config.elo_generations + 1)
    return sorted({*(round(place) for place in spread.tolist()), plays(folder)})


def pairs(config: AlphaZeroConfig, folder: Path) -> list[tuple[int, int]]:
    """Who meets for the ratings: neighbours, and each the one that plays."""
    chosen, best = rated(config, folder), plays(folder)
    both = [*pairwise(chosen), *((min(one, best), max(one, best)) for one in chosen if one != best)]
    return list(dict.fromkeys(both))


def elo(game: Game, config: AlphaZeroConfig, folder: Path, known: Match, advance: Advance) -> dict[str, Rating]:
    """Ratings by Bradley and Terry; generation 0, which knows nothing, is at 1000.

    Every rated generation meets its neighbours and the one that plays, the first plies of a game drawn by visits. Plain
    tree search has a place by `known`, its match with the latter, and by another with the one half way.
    """
    chosen, best = rated(config, folder), plays(folder)
    results = {}
    for pair in pairs(config, folder):
        first, second = (player_of(game, config, folder, one, opening=OPENING) for one in pair)
        results[_name(pair[0]), _name(pair[1])] = match(game, first, second, config.elo_games).scores
        advance()
    plain, middle = f"mcts{config.opponent_simulations}", chosen[len(chosen) // 2]
    results[_name(best), plain] = known.scores
    if middle != best:
        opponent = playout_player(game, config.opponent_simulations, random_numbers(config, middle, EVALUATION))
        half = player_of(game, config, folder, middle)
        results[_name(middle), plain] = match(game, half, opponent, config.elo_games).scores
    advance()
    most = max(map(len, results.values()))
    outcomes = {pair: [[s] for s in scores] + [[]] * (most - len(scores)) for pair, scores in results.items()}
    return ratings(outcomes, anchor=_name(0))


def matches(game: Game, config: AlphaZeroConfig, folder: Path) -> int:
    """How often `strength` and `elo` together will call `advance`."""
    return len(opponents(game, config, np.random.default_rng())) + len(pairs(config, folder)) + 1


def _name(generation: int) -> str:
    return f"generation {generation}"
