"""Rewards of any size brought to one scale while an agent learns; an evaluation sees them as they are."""

from dataclasses import replace

import numpy as np
import torch

from pipeline.agents.environments import Step
from pipeline.rl.moments import RunningMoments


def clipped(step: Step) -> Step:
    """The step with rewards clipped to [−1, 1], so that one learning rate serves every game (Mnih et al. 2015)."""
    return replace(step, rewards=step.rewards.clip(-1.0, 1.0))


class RewardScale:
    """r ← r / √Var(R), R_t = γ R_{t−1} + r_t the discounted return so far (Engstrom et al. 2020, Sec. 3).

    The mean is left alone: the sign of a reward carries meaning.

    Args:
        copies: E.
        gamma: discount in [0, 1].
    """

    def __init__(self, copies: int, gamma: float) -> None:
        self._gamma = gamma
        self._returns = np.zeros(copies)
        self._moments = RunningMoments()

    def __call__(self, step: Step) -> Step:
        """The step with scaled rewards; what was seen so far, this step included, sets the scale."""
        self._returns = self._gamma * self._returns + step.rewards
        self._moments.update(torch.as_tensor(self._returns))
        self._returns[step.terminated | step.truncated] = 0.0
        rewards = self._moments.normalize(torch.as_tensor(step.rewards), shift=False)
        return replace(step, rewards=rewards.numpy())
