"""Window, targets and steps of learning from self-play."""

import numpy as np
import pytest

from pipeline.games import make_game
from pipeline.selfplay.episodes import Examples
from pipeline.selfplay.learning import Learner
from pipeline.selfplay.network import NetworkJudge
from tests.games.builders import after
from tests.selfplay.builders import tiny

GAME = make_game("tic_tac_toe")


def examples(count: int, offset: int = 0) -> Examples:
    """Position i + offset wants move i mod 9 and is worth 1."""
    states = np.zeros((count, 2), np.int64)
    policies = np.eye(9, dtype=np.float32)[np.arange(count) % 9]
    return Examples(states, policies, np.ones(count, np.float32), np.full(count, offset, np.float32))


def test_the_window_grows_and_forgets_the_oldest() -> None:
    learner = Learner(GAME, tiny(window=10, window_share=0.5))
    sizes = []
    for number in range(6):
        learner.take_in(examples(8, number))
        assert learner.window is not None
        sizes.append(len(learner.window))
    assert sizes == [8, 10, 12, 16, 20, 24]
    assert set(learner.window.roots.tolist()) == {3, 4, 5}


def test_targets_mix_outcome_and_search_and_turn_with_the_board() -> None:
    learner = Learner(GAME, tiny(root_value_share=0.25, batch_size=200))
    state = after(GAME, "a1")
    policy = np.zeros((1, 9), np.float32)
    policy[0, 1] = 1  # b1, beside the stone: a symmetry keeps it beside the stone
    learner.take_in(Examples(state, policy, np.ones(1, np.float32), np.full(1, -1, np.float32)))
    planes, legal, policies, targets = learner._batch(np.random.default_rng(0))
    assert (targets == 0.75 - 0.25).all()
    stones = planes[:, 1].flatten(1)
    assert len(set(stones.argmax(dim=1).tolist())) == 4
    assert (legal == (stones == 0)).all()
    places = [(cell % 3, cell // 3) for cell in range(9)]
    for stone, move in zip(stones.argmax(dim=1).tolist(), policies.argmax(dim=1).tolist(), strict=True):
        assert abs(places[stone][0] - places[move][0]) + abs(places[stone][1] - places[move][1]) == 1


def test_a_network_fits_what_it_is_shown() -> None:
    learner = Learner(GAME, tiny(passes=60.0, averaging=0.5, schedule="constant", learning_rate=1e-2))
    states = np.concatenate([GAME.start(1), after(GAME, "b2")])
    policies = np.eye(9, dtype=np.float32)[[4, 0]]
    policies[1, [2, 6, 8]] = 1  # all corners
    policies /= policies.sum(axis=1, keepdims=True)
    learner.take_in(Examples(states, policies, np.array([0.5, -0.5], np.float32), np.zeros(2, np.float32)))
    figures = learner.learn(40, 0.0, np.random.default_rng(0))
    assert figures["rate"] == 1e-2
    priors, values = NetworkJudge(GAME, learner.average, precision="float32")(states)
    assert priors[0, 4] > 0.9
    assert priors[1, [0, 2, 6, 8]].min() > 0.15
    assert values.tolist() == pytest.approx([0.375, -0.375], abs=0.1)


def test_the_rate_falls_along_a_cosine() -> None:
    learner = Learner(GAME, tiny(passes=1.0))
    learner.take_in(examples(4))
    rates = [learner.learn(1, done, np.random.default_rng(0))["rate"] / 2e-3 for done in (0.0, 0.5, 1.0)]
    assert rates == pytest.approx([1.0, 0.525, 0.05])
