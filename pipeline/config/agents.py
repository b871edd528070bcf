"""Every setting of the classic agents: one flat model an algorithm, for `align agent ppo CartPole-v1 copies=8`."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from pipeline.config.base import Fraction, NonNegative, Positive, Rate, Section

Count = Annotated[int, Field(ge=0)]
Precision = Literal["auto", "float32", "bfloat16"]


class TrainedConfig(Section):
    """What everything that `align agent` trains has."""

    algorithm: str
    environment: str = Field(description="what to learn: a gymnasium id, or a game for alphazero")
    options: dict[str, Any] = Field(default_factory=dict, description="keyword arguments of the environment")
    seed: Count = Field(0, description="of everything")
    run_dir: str | None = Field(None, description="default runs/ALGORITHM-ENVIRONMENT")
    progress: bool = True


class AgentConfig(TrainedConfig):
    """What every agent on a gymnasium task has."""

    seed: Count = Field(0, description="of everything; copy i of the environment gets seed + i")
    seeds: Positive = Field(1, description="train this many agents, with seed, seed + 1, …; curves show an interval")
    workers: Positive | None = Field(None, description="seeds trained at once; null = one a core")
    steps: Positive = Field(50_000, description="environment steps of all copies together")
    copies: Positive = Field(1, description="environments stepped together")
    gamma: Fraction = Field(0.99, description="discount")
    evaluation_episodes: Positive = Field(100, description="episodes played greedily at the end")
    keep_best: Count = Field(
        0, description="steps between looks: the weights that play best are the result; 0 = the last ones are"
    )
    selection_episodes: Positive = Field(50, description="greedy episodes of a look; others than the evaluation's")


class NetworkConfig(Section):
    """Agents with a network."""

    network: Literal["auto", "mlp", "nature", "minatar"] = Field(
        "auto", description="auto: convolutions for pictures (three dimensions of uint8), Nature's or MinAtar's by size"
    )
    hidden: list[Positive] | None = Field(
        None, description="widths of the dense layers; null = [64, 64], of convolutions as published"
    )
    precision: Precision = Field(
        "float32", description="of the layers that see pictures; auto = bfloat16 on processors with tiles for it (AMX)"
    )
    clip_rewards: bool = Field(False, description="learn from rewards within [−1, 1]; results count the real ones")


class Exploring(AgentConfig):
    """ε-greedy with a linear decay."""

    epsilon_start: Fraction = 1.0
    epsilon_end: Fraction = 0.05
    epsilon_share: Fraction = Field(0.5, description="share of the steps over which ε falls; 0 = ε_end throughout")


class TabularConfig(Exploring):
    """Agents with a table; states and actions must be Discrete."""

    steps: Positive = 100_000
    rate: Annotated[float, Field(gt=0, le=1)] = Field(0.1, description="α, the first step size of every cell")
    rate_visits: Rate | None = Field(None, description="visits k after which a cell's α has halved; null = constant α")
    initial: float = Field(0.0, description="Q before learning; a high value explores")
    planning: Count = Field(0, description="imagined steps per real one (Dyna)")


class QLearningConfig(TabularConfig):
    """Off-policy: bootstraps from the best next action (Watkins 1989)."""

    algorithm: Literal["q_learning"] = "q_learning"


class SarsaConfig(TabularConfig):
    """On-policy: bootstraps from the next action taken (Rummery & Niranjan 1994)."""

    algorithm: Literal["sarsa"] = "sarsa"

    @model_validator(mode="after")
    def _no_planning(self) -> "SarsaConfig":
        if self.planning:
            raise ValueError("planning must be 0 for sarsa: an imagined step has no next action; use expected_sarsa")
        return self


class ExpectedSarsaConfig(TabularConfig):
    """Bootstraps from the mean over the acting policy (van Seijen et al. 2009)."""

    algorithm: Literal["expected_sarsa"] = "expected_sarsa"


class DqnConfig(Exploring, NetworkConfig):
    """Deep Q-network (Mnih et al. 2015); actions must be Discrete."""

    algorithm: Literal["dqn"] = "dqn"
    learning_rate: Rate = 1e-3
    schedule: Literal["constant", "linear"] = Field("constant", description="linear: the rate falls to 0")
    hidden: list[Positive] | None = Field(None, min_length=1, description="as for every network; at least one layer")
    replay: bool = Field(True, description="false: learn from the latest steps only (ablation)")
    buffer: Positive = Field(50_000, description="steps kept")
    batch_size: Positive = 64
    learning_starts: Count = Field(1_000, description="steps before learning begins")
    train_every: Positive = Field(4, description="environment steps between bouts of learning")
    gradient_steps: Positive = Field(1, description="optimiser steps a bout")
    target_network: bool = Field(True, description="false: bootstrap from the network being trained (ablation)")
    target_every: Positive = Field(500, description="environment steps between copies to the target network")
    target_rate: Annotated[float, Field(gt=0, le=1)] = Field(
        1.0, description="share of the way that a copy goes; 1 = all, .005 with target_every=1 = a slow average"
    )
    n_step: Positive = Field(1, description="rewards that are summed before the target network takes over")
    double: bool = Field(False, description="a' chosen online, valued by the target network (van Hasselt 2016)")
    dueling: bool = Field(False, description="value and advantage heads (Wang et al. 2016)")
    loss: Literal["huber", "mse"] = "huber"
    max_grad_norm: Rate = 10.0


class OnPolicyConfig(AgentConfig, NetworkConfig):
    """What the policy-gradient agents share."""

    copies: Positive = 8
    activation: Literal["tanh", "relu"] = "tanh"
    learning_rate: Rate = 3e-4
    schedule: Literal["constant", "linear"] = Field("constant", description="linear: the rate falls to 0")
    entropy_coef: NonNegative = 0.0
    value_coef: NonNegative = Field(1.0, description="of ½(V − R)²")
    max_grad_norm: Rate = 0.5
    normalize_advantages: Literal["none", "scale", "whiten"] = "whiten"
    normalize_observations: bool = Field(False, description="by running moments")
    normalize_rewards: bool = Field(False, description="by the running deviation of the discounted return")
    squash: bool = Field(False, description="continuous actions: tanh into the bounds instead of clipping")
    initial_log_std: float = Field(0.0, description="continuous actions: log σ before learning")


class ReinforceConfig(OnPolicyConfig):
    """Whole episodes, reward-to-go (Williams 1992)."""

    algorithm: Literal["reinforce"] = "reinforce"
    steps: Positive = 200_000
    learning_rate: Rate = 3e-3
    episodes: Positive = Field(8, description="finished episodes per update")
    baseline: Literal["none", "value"] = Field("value", description="subtract a learned V(s) from the return")
    max_grad_norm: Rate = Field(1000.0, description="of policy and baseline together: whole returns are large errors")


class A2cConfig(OnPolicyConfig):
    """Advantage actor-critic (Mnih et al. 2016, synchronous)."""

    algorithm: Literal["a2c"] = "a2c"
    steps: Positive = 200_000
    learning_rate: Rate = 7e-4
    optimizer: Literal["adam", "rmsprop"] = "rmsprop"
    horizon: Positive = Field(5, description="steps of every copy per update")
    gae_lambda: Fraction = Field(1.0, description="1 = n-step returns, below = GAE")
    normalize_advantages: Literal["none", "scale", "whiten"] = "none"


class PpoConfig(OnPolicyConfig):
    """Proximal policy optimisation (Schulman et al. 2017)."""

    algorithm: Literal["ppo"] = "ppo"
    steps: Positive = 100_000
    horizon: Positive = Field(128, description="steps of every copy per update")
    gae_lambda: Fraction = 0.95
    epochs: Positive = Field(10, description="passes over each rollout")
    minibatch_size: Positive = 64
    clip: Rate = 0.2
    clip_schedule: Literal["constant", "linear"] = Field("constant", description="linear: the clip range falls to 0")
    value_clip: Rate | None = None
    target_kl: Rate | None = Field(None, description="end an update once approx_kl exceeds this")


class AlphaZeroConfig(TrainedConfig):
    """Self-play with tree search on a board game (Silver et al. 2018)."""

    algorithm: Literal["alphazero"] = "alphazero"
    generations: Positive = Field(40, description="of self-play and learning from it")
    games: Positive = Field(512, description="of a generation, played all at once")
    simulations: Positive = Field(100, description="of a full search, whose visits teach the policy")
    fast_simulations: Positive = Field(25, description="of the other searches, which only bring the game on (Wu 2019)")
    full_share: Annotated[float, Field(gt=0, le=1)] = Field(0.25, description="of the moves that get a full search")
    exploration: NonNegative = Field(1.5, description="c of PUCT")
    first_play: NonNegative = Field(0.2, description="how much less a move promises that nobody looked at yet")
    noise_share: Fraction = Field(0.25, description="of Dirichlet's noise in the root's priors")
    noise_alpha: Rate = Field(1.0, description="α of Dirichlet; about 10 over the number of moves")
    temperature: NonNegative = Field(1.0, description="of the choice of moves by visits, when a game begins")
    temperature_end: Rate = Field(0.2, description="late in the game")
    temperature_halving: Rate = Field(10.0, description="plies in which the distance to the end halves")
    channels: Positive = Field(64, description="width of the network")
    blocks: Positive = Field(3, description="of two convolutions each")
    precision: Precision = Field(
        "auto", description="of the convolutions; auto = bfloat16 on processors with tiles for it (AMX)"
    )
    learning_rate: Rate = 2e-3
    schedule: Literal["constant", "cosine"] = Field("cosine", description="cosine: the rate falls to a twentieth")
    batch_size: Positive = 256
    passes: Rate = Field(8.0, description="times that a new position is learned from, on the average")
    weight_decay: NonNegative = 1e-4
    value_coef: NonNegative = Field(1.0, description="of (z − v)² beside the policy's cross-entropy")
    root_value_share: Fraction = Field(
        0.25, description="of the search's own value in z; the rest is how the game ended"
    )
    averaging: Annotated[float, Field(gt=0, le=1)] = Field(
        0.02, description="share of the way that the playing weights go each step; 1 = they are the learned ones"
    )
    max_grad_norm: Rate = 1.0
    window: Positive = Field(20_000, description="positions that are kept at least")
    window_share: Fraction = Field(0.5, description="of all positions so far that are kept")
    gate: Fraction | None = Field(
        None, description="score against the best so far that a network needs to play on; null = the newest plays"
    )
    gate_games: Positive = Field(100, description="of the gate")
    evaluation_games: Positive = Field(200, description="against each opponent at the end, half of them as the first")
    evaluation_simulations: Positive = Field(100, description="of its own, at each move of an evaluation")
    opponent_simulations: Positive = Field(
        1000, description="of the tree search with random playouts it is held against"
    )
    elo_generations: Positive = Field(10, description="earlier selves, spread evenly, that are rated with the last one")
    elo_games: Positive = Field(40, description="of each with its neighbours and the last one")


AGENTS: dict[str, type[TrainedConfig]] = {
    "q_learning": QLearningConfig,
    "sarsa": SarsaConfig,
    "expected_sarsa": ExpectedSarsaConfig,
    "dqn": DqnConfig,
    "reinforce": ReinforceConfig,
    "a2c": A2cConfig,
    "ppo": PpoConfig,
    "alphazero": AlphaZeroConfig,
}
