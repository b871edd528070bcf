"""What goes into a network and comes out of it."""

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch.testing import assert_close

from pipeline.agents.networks import ActorCritic, Encoder, QNetwork

BOX = spaces.Box(-1.0, 1.0, (2, 3), np.float64)
STATES = spaces.Discrete(5)


def test_choices_become_one_hot_and_boxes_flat() -> None:
    assert Encoder(STATES)(torch.tensor([[3, 0]])).tolist() == [[[0, 0, 0, 1, 0], [1, 0, 0, 0, 0]]]
    encoded = Encoder(BOX)(torch.arange(12.0, dtype=torch.float64).view(1, 2, 2, 3))
    assert encoded.shape == (1, 2, 6)
    assert encoded.dtype == torch.float32
    assert Encoder(spaces.Box(0.0, 1.0, ()))(torch.tensor([0.5, 0.25])).tolist() == [[0.5], [0.25]]


def test_normalising_uses_what_was_watched_only() -> None:
    encode = Encoder(spaces.Box(-9.0, 9.0, (1,)), normalize=True)
    x = torch.tensor([[1.0], [3.0]])
    assert_close(encode(x), x)
    encode.watch(x)
    assert_close(encode(x), torch.tensor([[-1.0], [1.0]]))


def test_an_unknown_space_is_named_with_a_way_out() -> None:
    with pytest.raises(ValueError, match="FlattenObservation"):
        Encoder(spaces.Dict({"a": BOX}))
    with pytest.raises(ValueError, match="only Discrete and Box"):
        ActorCritic(BOX, spaces.MultiDiscrete([2, 2]))


@pytest.mark.parametrize("duel", [False, True])
def test_q_values_of_every_action(duel: bool) -> None:
    network = QNetwork(4, 3, [8, 8], dueling=duel)
    q = network(torch.randn(5, 4))
    assert q.shape == (5, 3)
    q.sum().backward()
    assert all(p.grad is not None for p in network.parameters())


@pytest.mark.parametrize("squash", [False, True])
def test_continuous_actions_stay_within_their_bounds(squash: bool) -> None:
    space = spaces.Box(np.array([-2.0, 0.0], np.float32), np.array([2.0, 5.0], np.float32))
    network = ActorCritic(BOX, space, squash=squash, initial_log_std=2.0)
    actions = network.distribution(torch.randn(50, 2, 3)).sample(torch.Generator().manual_seed(0))
    given = network.to_environment(actions)
    assert given.shape == (50, 2)
    assert all(space.contains(action) for action in given)
    if not squash:
        inside = (actions >= network.low) & (actions <= network.high)
        assert_close(torch.as_tensor(given)[inside], actions[inside])


def test_squashing_needs_bounds() -> None:
    with pytest.raises(ValueError, match="squash"):
        ActorCritic(BOX, spaces.Box(-np.inf, np.inf, (1,)), squash=True)


def test_a_second_look_says_what_evaluate_says() -> None:
    network = ActorCritic(BOX, spaces.Discrete(3), entropy_gradient=False)
    states, successors = torch.randn(2, 4, 2, 3), torch.randn(2, 4, 2, 3)
    actions = torch.randint(3, (2, 4))
    logprobs, values, following = network.second_look(states, actions, successors)
    evaluation = network.evaluate({"states": states}, actions)
    assert_close(logprobs, evaluation.logprobs.detach())
    assert_close(values, evaluation.values.detach())
    assert_close(following, network.evaluate({"states": successors}, actions).values.detach())
    assert evaluation.logprobs.requires_grad
    assert not evaluation.entropy.requires_grad


def test_without_a_critic_there_are_no_values() -> None:
    network = ActorCritic(BOX, spaces.Discrete(3), critic=False)
    states = torch.randn(1, 2, 2, 3)
    assert network.second_look(states, torch.zeros(1, 2, dtype=torch.int64), states)[1:] == (None, None)
    assert network.evaluate({"states": states}, torch.zeros(1, 2, dtype=torch.int64)).values is None
