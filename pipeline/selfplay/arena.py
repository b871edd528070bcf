"""Players against each other, as many games at once as they like."""

from dataclasses import dataclass

import numpy as np

from pipeline.games import Floats, Game
from pipeline.selfplay.players import Player


@dataclass(frozen=True)
class Match:
    """What a match came to for the first of two players.

    Attributes:
        as_first, as_second: result of each game, 1, 0 or −1, in which it began, or the other did.
        different: how many of all the games were no repetition of another.
    """

    as_first: Floats
    as_second: Floats
    different: int

    @property
    def results(self) -> Floats:
        """Of all games."""
        return np.concatenate([self.as_first, self.as_second])

    @property
    def scores(self) -> list[float]:
        """1, ½ or 0 of each game."""
        return ((1 + self.results) / 2).tolist()

    def figures(self) -> dict[str, float]:
        """Games, wins, draws, losses, and the mean score with ½ for a draw."""
        results = self.results
        return {
            "games": len(results),
            "wins": int((results > 0).sum()),
            "draws": int((results == 0).sum()),
            "losses": int((results < 0).sum()),
            "score": float(np.mean(self.scores)),
            "losses_as_first": int((self.as_first < 0).sum()),
            "losses_as_second": int((self.as_second < 0).sum()),
            "different": self.different,
        }


def match(game: Game, one: Player, other: Player, games: int) -> Match:
    """`one` begins half of the games, rounded up, `other` the rest."""
    first, moves = play_games(game, one, other, games - games // 2)
    second, more = play_games(game, other, one, games // 2)
    different = len({tuple(row) for row in moves}) + len({tuple(row) for row in more})
    return Match(first, -second, different)


def play_games(game: Game, first: Player, second: Player, games: int) -> tuple[Floats, list[list[int]]]:
    """Results [games] for `first`, who begins, and the moves of each game."""
    states, who = game.start(games), np.arange(games)
    results: Floats = np.zeros(games, np.float32)
    moves: list[list[int]] = [[] for _ in range(games)]
    ply = 0
    while len(who):
        actions = (first, second)[ply % 2](states, ply)
        for index, action in zip(who.tolist(), actions.tolist(), strict=True):
            moves[index].append(action)
        states, ply = game.play(states, actions), ply + 1
        over, values = game.outcome(states)
        results[who[over]] = values[over] * (1 - 2 * (ply % 2))  # after an even number of moves the first is to move
        states, who = states[~over], who[~over]
    return results, moves
