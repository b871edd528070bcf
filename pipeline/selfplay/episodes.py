"""Games against oneself, many at once, and what they teach."""

from dataclasses import dataclass, fields

import numpy as np
import torch

from pipeline.games import Floats, Game, Ints
from pipeline.rl.search import Puct, half_life, visit_policy
from pipeline.selfplay.tree import Judge, Trees

SOON = 4  # plies


@dataclass(frozen=True)
class SearchSettings:
    """How self-play searches and moves.

    Attributes:
        rule: PUCT's constants.
        simulations: of a full search, whose visits teach the policy.
        fast_simulations: of the others, which only bring the game on (Wu 2019, Sec. 3.1).
        full_share: of the moves that get a full search.
        noise_share, noise_alpha: Dirichlet's at the root of full searches.
        temperature, temperature_end, temperature_halving: of the moves' choice, `half_life` in plies.
    """

    rule: Puct
    simulations: int
    fast_simulations: int
    full_share: float
    noise_share: float
    noise_alpha: float
    temperature: float
    temperature_end: float
    temperature_halving: float


@dataclass(frozen=True)
class Examples:
    """Positions and what a network should say of them; rows [N,…]."""

    states: Ints
    policies: Floats  # [N,A], visit shares
    outcomes: Floats  # [N], how the game ended for the player to move
    roots: Floats  # [N], what the search thought of it

    def __len__(self) -> int:
        return len(self.states)

    def rows(self, which: object) -> "Examples":
        """Some of them."""
        return Examples(*(getattr(self, one.name)[which] for one in fields(self)))


@dataclass(frozen=True)
class Record:
    """What a bout of self-play came to."""

    examples: Examples
    plies: int  # of all games together
    first_wins: int  # of the player who began
    draws: int
    simulations: int


def join(parts: list[Examples]) -> Examples:
    """One after the other."""
    return Examples(*(np.concatenate([getattr(part, one.name) for part in parts]) for one in fields(Examples)))


def self_play(game: Game, judge: Judge, games: int, settings: SearchSettings, rng: np.random.Generator) -> Record:
    """Play `games` to their end, all at once.

    Whether a ply is searched in full is drawn once for all games, so that all their leaves are judged together.
    """
    states, who = game.start(games), np.arange(games)
    results = np.zeros(games, np.float32)  # for the player who began
    parts, owners, signs = [], [], []
    ply = plies = simulations = 0
    # One of the first plies is searched in full for sure, so that games that are over soon teach something, too.
    surely = int(rng.integers(min(SOON, round(1 / settings.full_share))))
    while len(who):
        full = bool(rng.random() < settings.full_share) or ply == surely
        trees = _search(game, judge, states, full, settings, rng)
        visits = torch.from_numpy(trees.visits)
        sign = 1 - 2 * (ply % 2)
        if full:
            shares = visit_policy(visits, 1.0).numpy()
            parts.append(Examples(states, shares, np.zeros(len(who), np.float32), trees.values))
            owners.append(who)
            signs.append(np.full(len(who), sign, np.float32))
        plies += len(who)
        simulations += len(who) * (settings.simulations if full else settings.fast_simulations)
        temperature = half_life(settings.temperature, settings.temperature_end, ply, settings.temperature_halving)
        states = game.play(states, draw(visit_policy(visits, temperature).numpy(), rng))
        over, values = game.outcome(states)
        results[who[over]] = -sign * values[over]  # the other one is to move now
        states, who, ply = states[~over], who[~over], ply + 1
    found = join(parts)
    outcomes = results[np.concatenate(owners)] * np.concatenate(signs)
    examples = Examples(found.states, found.policies, outcomes, found.roots)
    return Record(examples, plies, int((results > 0).sum()), int((results == 0).sum()), simulations)


def _search(
    game: Game, judge: Judge, states: Ints, full: bool, settings: SearchSettings, rng: np.random.Generator
) -> Trees:
    simulations = settings.simulations if full else settings.fast_simulations
    trees = Trees(game, states, judge, settings.rule, simulations + 1)
    if full:
        trees.add_noise(np.arange(len(states)), share=settings.noise_share, alpha=settings.noise_alpha, rng=rng)
    trees.run(np.full(len(states), simulations))
    return trees


def draw(probabilities: Floats, rng: np.random.Generator) -> Ints:
    """One column [N] a row, by the probabilities [N,A]."""
    sums = probabilities.cumsum(axis=1)
    found: Ints = (sums <= rng.random((len(sums), 1)) * sums[:, -1:]).sum(axis=1)
    return found
