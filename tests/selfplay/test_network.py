"""The network judges as it was trained, remembers without changing its mind, and gives every legal move a chance."""

import numpy as np
import pytest
import torch

from pipeline.games import Game, make_game
from pipeline.selfplay.network import LEAST, NetworkJudge, PolicyValueNetwork, position_keys
from tests.games.builders import after


def network(game: Game, seed: int = 0) -> PolicyValueNetwork:
    """With heads that say something; a fresh network's are 0."""
    torch.manual_seed(seed)
    made = PolicyValueNetwork(game, channels=8, blocks=2)
    for weight in made.parameters():
        torch.nn.init.normal_(weight, std=0.2)
    return made


def test_an_untrained_network_has_no_opinion() -> None:
    game = make_game("connect_four")
    judge = NetworkJudge(game, PolicyValueNetwork(game, channels=8, blocks=1), precision="float32")
    priors, values = judge(np.concatenate([game.start(1), after(game, "1 1 1 1 1 1")]))
    assert priors[0].std() < 0.02
    assert abs(values).max() < 0.2
    assert priors[1, 0] == 0
    assert priors.sum(axis=1) == pytest.approx([1, 1])


def test_priors_and_values_are_the_networks() -> None:
    game = make_game("connect_four")
    made, states = network(game), np.concatenate([after(game, "4 4 3"), after(game, "1 1 1 1 1 1")])
    priors, values = NetworkJudge(game, made, precision="float32")(states)
    with torch.no_grad():
        logits, wanted = made(torch.from_numpy(game.planes(states)))
    logits[1, 0] = -torch.inf
    assert priors == pytest.approx(logits.softmax(dim=1).numpy(), abs=2 * LEAST)
    assert values == pytest.approx(wanted.numpy(), abs=1e-5)


def test_memory_changes_nothing() -> None:
    """A judge with room for 4 positions forgets and is asked again; one with room for all is not."""
    game, rng = make_game("tic_tac_toe"), np.random.default_rng(0)
    made = network(game)
    small, large = (NetworkJudge(game, made, precision="float32", remembered=room) for room in (4, 1 << 12))
    states = game.start(64)
    for _ in range(4):
        legal = game.legal(states)
        states = game.play(states, (legal * rng.random(legal.shape)).argmax(axis=1))
        for _ in range(2):
            one, other = small(states), large(states)
            assert one[0] == pytest.approx(other[0], abs=1e-5)
            assert one[1] == pytest.approx(other[1], abs=1e-5)
    assert large.judged < small.judged < small.asked == 512


def test_equal_positions_are_judged_once() -> None:
    game = make_game("connect_four")
    judge = NetworkJudge(game, network(game), precision="float32")
    judge(game.start(50))
    judge(np.concatenate([game.start(3), after(game, "4")]))
    assert (judge.asked, judge.judged) == (54, 2)


def test_later_training_doesn_t_change_a_judge() -> None:
    game = make_game("tic_tac_toe")
    made = network(game)
    judge = NetworkJudge(game, made, precision="float32", remembered=1)
    before = judge(game.start(1))[0].copy()
    with torch.no_grad():
        made.policy.weight.add_(1)
    judge(after(game, "a1"))
    assert (judge(game.start(1))[0] == before).all()


def test_half_precision_is_near() -> None:
    game = make_game("connect_four")
    made, states = network(game), np.concatenate([after(game, "4 4 3"), after(game, "1 2 3 4")])
    whole, half = (NetworkJudge(game, made, precision=kind)(states) for kind in ("float32", "bfloat16"))
    assert half[0] == pytest.approx(whole[0], abs=0.05)
    assert half[1] == pytest.approx(whole[1], abs=0.05)


def test_keys_tell_positions_apart() -> None:
    states = np.stack([np.arange(100_000), np.zeros(100_000, np.int64)], axis=1)
    both = np.concatenate([states, states[1:, ::-1]])
    assert len(np.unique(position_keys(both))) == len(both)
    assert (position_keys(states[:5]) == position_keys(states)[:5]).all()
