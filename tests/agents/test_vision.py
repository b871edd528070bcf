"""Convolutions for pictures: which, and that they compute what plain layers compute, and learn."""

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import nn
from torch.testing import assert_close

from pipeline.agents.environments import Environments
from pipeline.agents.networks import ActorCritic
from pipeline.agents.training import build
from pipeline.agents.vision import PixelNetworks, PixelQNetwork, Vision, choose, dtype_of
from pipeline.config import load_agent

ATARI = spaces.Box(0, 255, (4, 84, 84), np.uint8)
CELLS = spaces.Box(0, 1, (10, 10, 6), np.uint8)


def test_pictures_choose_their_convolutions() -> None:
    assert choose(ATARI, "auto") == "nature"
    assert choose(CELLS, "auto") == "minatar"
    assert choose(ATARI, "mlp") is None
    assert choose(spaces.Box(0, 1, (3, 84, 84), np.float32), "auto") is None  # no bytes
    assert choose(spaces.Box(0, 255, (128,), np.uint8), "auto") is None
    assert choose(spaces.Discrete(5), "auto") is None


@pytest.mark.parametrize(
    ("space", "network", "words"),
    [
        (spaces.Box(-1, 1, (4,), np.float32), "nature", "no picture"),
        (spaces.Discrete(4), "minatar", "no picture"),
        (CELLS, "nature", "too small"),
    ],
)
def test_what_is_no_picture_is_refused_in_one_sentence(space, network, words) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=words) as caught:
        choose(space, network)
    assert "mlp" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_it_is_natures_network() -> None:
    """The published sizes, written as plain layers on pixels divided by 255."""
    network = PixelQNetwork(Vision(ATARI, "nature"), 6)
    plain = nn.Sequential(
        *(nn.Conv2d(4, 32, 8, 4), nn.ReLU(), nn.Conv2d(32, 64, 4, 2), nn.ReLU(), nn.Conv2d(64, 64, 3), nn.ReLU()),
        *(nn.Flatten(), nn.Linear(3136, 512), nn.ReLU(), nn.Linear(512, 6)),
    )
    layers = [layer for layer in plain if hasattr(layer, "weight")]
    mine = [*network.vision.convolutions, *network.vision.dense, network.head]
    for one, other in zip(layers, mine, strict=True):
        one.load_state_dict(other.state_dict())
    # Ours runs through a picture's places before it goes on to the next channel.
    order = torch.arange(3136).view(7, 7, 64).permute(2, 0, 1).flatten()
    layers[3].weight.data = network.vision.dense[0].weight.data[:, order]
    x = torch.randint(0, 256, (3, 4, 84, 84), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    assert_close(network(x), plain(x.float() / 255))
    plain(x.float() / 255)[:, 2].sum().backward()
    network.backward(x, lambda q: (q[:, 2].sum(), torch.eye(6)[2].expand(3, 6)))
    assert_close(network.vision.convolutions[0].weight.grad, layers[0].weight.grad)


def test_half_precision_multiplies_only() -> None:
    """bfloat16 has 8 bits: values and slopes within a few hundredths, yet not the same; nothing is kept in it."""
    both = {}
    x = torch.randint(0, 256, (8, 4, 84, 84), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    for precision in ("float32", "bfloat16"):
        torch.manual_seed(0)
        network = PixelQNetwork(Vision(ATARI, "nature", precision=precision), 6)
        network.backward(x, lambda q: (q.square().mean(), q))
        slope = torch.cat([parameter.grad.flatten() for parameter in network.parameters()])
        q = network(x).detach()
        assert q.dtype == slope.dtype == torch.float32
        both[precision] = q, slope
    for whole, half in zip(*both.values(), strict=True):
        assert 1e-4 < (half - whole).norm() / whole.norm() < 0.03


def test_auto_is_half_where_the_processor_has_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    for tiles, dtype in ((True, torch.bfloat16), (False, torch.float32)):
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda tiles=tiles: tiles, raising=False)
        assert dtype_of("auto") == dtype
        assert (dtype_of("float32"), dtype_of("bfloat16")) == (torch.float32, torch.bfloat16)


def test_channels_may_come_last() -> None:
    vision = Vision(CELLS, "minatar")
    assert [tuple(layer.weight.shape) for layer in vision.convolutions] == [(16, 6, 3, 3)]
    assert [tuple(layer.weight.shape) for layer in vision.dense] == [(128, 8 * 8 * 16)]
    other = Vision(spaces.Box(0, 1, (6, 10, 10), np.uint8), "minatar")
    other.load_state_dict(vision.state_dict())
    x = torch.randint(0, 2, (2, 3, 10, 10, 6), dtype=torch.uint8)
    assert vision(x).shape == (2, 3, 128)
    assert_close(vision(x), other(x.movedim(-1, -3)))


def test_policy_and_critic_share_what_they_see() -> None:
    network = ActorCritic(CELLS, spaces.Discrete(3))
    assert isinstance(network.networks, PixelNetworks)
    states = torch.randint(0, 2, (2, 5, 10, 10, 6), dtype=torch.uint8)
    actions = torch.zeros(2, 5, dtype=torch.int64)
    evaluation = network.evaluate({"states": states}, actions)
    logprobs, values, following = network.second_look(states, actions, states)
    assert_close(logprobs, evaluation.logprobs.detach())
    assert values is not None
    assert_close(values, evaluation.values.detach())  # type: ignore[union-attr]
    assert_close(values, following)
    with pytest.raises(ValueError, match="normalize_observations"):
        ActorCritic(CELLS, spaces.Discrete(3), normalize=True)


class Side(gymnasium.Env[np.ndarray, int]):
    """A bright bar, left or right, on noise; name its side. Four steps an episode; pixels decide everything."""

    def __init__(self) -> None:
        self.observation_space = spaces.Box(0, 255, (8, 8, 1), np.uint8)
        self.action_space = spaces.Discrete(2)

    def _picture(self) -> np.ndarray:
        self._side = int(self.np_random.integers(2))
        picture = self.np_random.integers(0, 100, (8, 8, 1)).astype(np.uint8)
        column = int(self.np_random.integers(3)) + 5 * self._side
        picture[:, column] = 250
        return picture

    def reset(self, *, seed=None, options=None):  # type: ignore[no-untyped-def]
        super().reset(seed=seed)
        self._left = 4
        return self._picture(), {}

    def step(self, action):  # type: ignore[no-untyped-def]
        reward = float(action == self._side)
        self._left -= 1
        return self._picture(), reward, self._left == 0, False, {}


@pytest.mark.parametrize(
    ("algorithm", "steps", "settings"),
    [
        ("dqn", 1_500, ["learning_starts=200", "train_every=8", "target_every=200", "double=true", "dueling=true"]),
        ("ppo", 3_000, ["horizon=32", "epochs=4", "learning_rate=1e-3", "entropy_coef=0.01"]),
    ],
)
def test_a_network_learns_to_see(algorithm: str, steps: int, settings: list[str]) -> None:
    if "Side-v0" not in gymnasium.registry:
        gymnasium.register("Side-v0", entry_point=Side)
    config = load_agent(algorithm, "Side-v0", ["copies=8", "gamma=0.5", "hidden=[32]", *settings])
    envs = Environments("Side-v0", 8, seed=0)
    agent = build(config, envs.observation_space, envs.action_space)
    while envs.steps < steps:
        agent.anneal(envs.steps / steps)
        agent.learn(envs.step(agent.act(envs.observations)), envs.observations)
    rewards = [envs.step(agent.act(envs.observations, greedy=True)).rewards.mean() for _ in range(30)]
    assert np.mean(rewards) > 0.95  # chance is one half
