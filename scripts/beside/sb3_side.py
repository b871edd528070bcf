"""Stable-Baselines3 on a config of ours, timed. Its DQN knows no loss but Huber's, and everything is float32."""

import time
from typing import Any

import torch
from stable_baselines3 import A2C, DQN, PPO
from stable_baselines3.common.env_util import make_atari_env, make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import VecFrameStack

from pipeline.agents.landmarks import ATARI
from pipeline.agents.networks import HIDDEN
from pipeline.agents.training import EVALUATION_SEED
from pipeline.config import AgentConfig


def train(config: AgentConfig) -> dict[str, float]:
    """Learn for `config.steps` on one thread, play `config.evaluation_episodes`; steps a second and the mean return."""
    torch.set_num_threads(1)
    model = learner(config)
    started = time.perf_counter()
    model.learn(config.steps)
    seconds = time.perf_counter() - started
    held = environments(config, min(10, config.evaluation_episodes), config.seed + EVALUATION_SEED)
    mean, _ = evaluate_policy(model, held, n_eval_episodes=config.evaluation_episodes, deterministic=True)
    return {"steps_per_second": model.num_timesteps / seconds, "mean_return": float(mean)}


def learner(config: Any) -> Any:
    """PPO, A2C or DQN with the same settings; where there are pixels, with the same convolutions."""
    pixels = config.environment.startswith(ATARI)
    arguments = {
        "policy": "CnnPolicy" if pixels else "MlpPolicy",
        "env": environments(config, config.copies, config.seed),
        "learning_rate": _rate(config.learning_rate, config.schedule),
        "gamma": config.gamma,
        "policy_kwargs": {} if pixels else {"net_arch": list(config.hidden or HIDDEN)},
        "device": "cpu",
        "seed": config.seed,
    }
    if config.algorithm == "dqn":
        return DQN(
            **arguments,
            buffer_size=config.buffer,
            batch_size=config.batch_size,
            learning_starts=config.learning_starts,
            train_freq=config.train_every // config.copies,  # they count steps of all copies together
            gradient_steps=config.gradient_steps,
            target_update_interval=config.target_every,
            tau=config.target_rate,
            exploration_fraction=config.epsilon_share,
            exploration_final_eps=config.epsilon_end,
        )
    arguments |= {"n_steps": config.horizon, "gae_lambda": config.gae_lambda, "ent_coef": config.entropy_coef}
    if config.algorithm == "a2c":
        return A2C(**arguments)
    passes = {"batch_size": config.minibatch_size, "n_epochs": config.epochs}
    return PPO(**arguments, **passes, clip_range=_rate(config.clip, config.clip_schedule))


def environments(config: AgentConfig, copies: int, seed: int) -> Any:
    """Copies of the task, with their own preprocessing of pixels."""
    if not config.environment.startswith(ATARI):
        return make_vec_env(config.environment, copies, seed=seed)
    import ale_py  # noqa: F401  (registers the games)

    options = {key: value for key, value in config.options.items() if key == "repeat_action_probability"}
    envs = make_atari_env(config.environment, copies, seed=seed, env_kwargs={"frameskip": 1, **options})
    return VecFrameStack(envs, 4)


def _rate(value: float, schedule: str) -> Any:
    return (lambda left: left * value) if schedule == "linear" else value
