"""What self-play writes down: outcomes through the eyes of who was to move, shares of visits, and the right share."""

from dataclasses import replace

import numpy as np
import pytest

from pipeline.games import make_game
from pipeline.rl.search import Puct
from pipeline.selfplay.episodes import SearchSettings, draw, self_play
from pipeline.selfplay.players import PerfectPlayer
from tests.selfplay.builders import EvenJudge

SETTINGS = SearchSettings(
    rule=Puct(),
    simulations=20,
    fast_simulations=5,
    full_share=1.0,
    noise_share=0.25,
    noise_alpha=1.0,
    temperature=1.0,
    temperature_end=0.2,
    temperature_halving=10,
)


def test_a_record_adds_up() -> None:
    game = make_game("tic_tac_toe")
    record = self_play(game, EvenJudge(game), 40, SETTINGS, np.random.default_rng(0))
    examples = record.examples
    assert len(examples) == record.plies
    assert record.simulations == 20 * record.plies
    assert examples.policies.sum(axis=1) == pytest.approx(np.ones(len(examples)))
    assert not (examples.policies * ~game.legal(examples.states)).any()
    starts = (examples.states == 0).all(axis=1)
    assert starts.sum() == 40
    outcomes = examples.outcomes[starts]
    assert (outcomes > 0).sum() == record.first_wins
    assert (outcomes == 0).sum() == record.draws


def test_outcomes_are_the_movers() -> None:
    """Where perfect play has won and a thorough search plays on greedily, the mover's outcome is 1; where lost, −1."""
    game = make_game("tic_tac_toe")
    settings = replace(SETTINGS, simulations=200, noise_share=0.0, temperature=0.2, temperature_end=0.01)
    settings = replace(settings, temperature_halving=0.5)
    examples = self_play(game, EvenJudge(game), 30, settings, np.random.default_rng(0)).examples
    perfect = PerfectPlayer(game, np.random.default_rng(0))
    values = np.array([perfect.value(state) for state in examples.states])
    late = (examples.states != 0).all(axis=1)
    assert np.abs(values[late]).sum() > 10
    assert (examples.outcomes[late] == values[late]).mean() > 0.95
    assert np.corrcoef(examples.roots[late], values[late])[0, 1] > 0.9


def test_only_full_searches_teach() -> None:
    game = make_game("connect_four")
    settings = replace(SETTINGS, full_share=0.25)
    records = [self_play(game, EvenJudge(game), 8, settings, np.random.default_rng(seed)) for seed in range(12)]
    share = sum(len(record.examples) for record in records) / sum(record.plies for record in records)
    assert 0.2 < share < 0.45  # one of the first four plies is always among them
    for record in records:
        full = len(record.examples)
        assert full > 0
        assert record.simulations == 20 * full + 5 * (record.plies - full)


def test_the_same_numbers_give_the_same_games() -> None:
    game = make_game("connect_four")
    one, other = (self_play(game, EvenJudge(game), 6, SETTINGS, np.random.default_rng(3)).examples for _ in range(2))
    assert (one.states == other.states).all()
    assert (one.policies == other.policies).all()


def test_draws_follow_the_probabilities() -> None:
    rng = np.random.default_rng(0)
    rows = np.repeat(np.array([[0.0, 0.5, 0.25, 0.25, 0.0]], np.float32), 40_000, axis=0)
    counts = np.bincount(draw(rows, rng), minlength=5) / 40_000
    assert counts.tolist() == pytest.approx([0, 0.5, 0.25, 0.25, 0], abs=0.01)
    assert counts[0] == counts[4] == 0
