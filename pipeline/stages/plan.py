"""`align plan`: how much memory each stage will need, from the configuration alone, and what would change that.

A prediction is the sum of what lives through a stage (libraries, base, adapters, optimiser) and of the larger of what
its phases need (sampling: the decoder's copy, keys and values; training: activations, logits). It takes every sequence
to be as long as the limits allow, or as the data's longest. A prompt that several answers share counts once where the
backbone packs them.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import psutil
import torch

from pipeline.config import Config, OptimizerName, parse_config
from pipeline.lm.footprint import ADAPTER, Footprint
from pipeline.lm.options import choose_device, choose_dtype
from pipeline.stages.inputs import reward_section
from pipeline.stages.sizes import Lengths, footprint, judges, limits

# What is allocated and freed leaves holes: more where sizes vary than in caches of one size. Measured
# with scripts/bench_plan.py; a GPU's allocator keeps blocks of like sizes together.
SCATTER = {"training": 1.45, "sampling": 1.15, "judging": 1.15}
GPU_SCATTER = 1.1


@cache
def libraries() -> float:
    """Bytes that this process holds, which has imported what a stage imports; of the first time it is asked."""
    return float(psutil.Process().memory_info().rss)


@dataclass(frozen=True)
class StagePlan:
    """What one stage needs, in bytes: parts that stay, and phases, of which the largest counts."""

    stage: str
    stays: dict[str, float]
    phases: dict[str, dict[str, float]]
    gpu: bool = False

    @property
    def peak(self) -> float:
        """Bytes."""
        return sum(self.stays.values()) + self._at_work(self.largest)

    @property
    def largest(self) -> str:
        """The phase with the peak."""
        return max(self.phases, key=self._at_work)

    def _at_work(self, phase: str) -> float:
        return (GPU_SCATTER if self.gpu else SCATTER[phase.split()[0]]) * sum(self.phases[phase].values())


def plan(config: Config, longest: Lengths | None = None) -> list[StagePlan]:
    """The run's stages, for rows as long as `longest`; None = as the limits allow."""
    size = footprint(config)
    device = choose_device(config.model.device)
    width = choose_dtype(config.model.dtype, device).itemsize
    planner = Planner(config, size, judges(config), width, device.type != "cpu", longest or limits(config))
    dpo = [planner.dpo()] if config.dpo is not None else []
    reward = [planner.reward()] if config.reward is not None else []
    return [planner.sft(), *reward, *dpo, planner.policy(), planner.evaluate()]


@dataclass(frozen=True)
class Planner:
    """The stages' memory; see the module's docstring."""

    config: Config
    size: Footprint
    judges: Mapping[str, tuple[Footprint, int]]
    width: int
    gpu: bool
    longest: Lengths

    def sft(self) -> StagePlan:
        """One adapter, one pass of a microbatch at a time."""
        cfg = self.config.sft
        return StagePlan(
            "sft",
            self._stays(roles=1, learns=self._learns(1, cfg.optimizer), remembers=True),
            {"training": self._training(min(cfg.microbatch_size, cfg.batch_size) * self.longest.sft)},
            self.gpu,
        )

    def reward(self) -> StagePlan:
        """SFT, reward model and judges on one base; answers are sampled first, which say what a score of 0 is."""
        cfg = reward_section(self.config)
        training = self._training(min(cfg.microbatch_size, cfg.batch_size) * self.longest.pair)
        training["logits"] = 0.0
        stays = self._stays(roles=2 + len(cfg.judge_names), learns=self._learns(1, cfg.optimizer), remembers=True)
        training |= {name: stays.pop(name) for name in ("optimiser", "kept states")}  # sampled before anything learns
        rows = min(48, cfg.calibration_samples)
        return StagePlan(
            "reward",
            stays,
            {"sampling": self._sampling(rows, rows, self.longest.prompt), "training": training},
            self.gpu,
        )

    def dpo(self) -> StagePlan:
        """Reference and learner on one base, chosen and rejected answers in one pass."""
        cfg = self.config.dpo
        assert cfg is not None
        tokens = min(cfg.microbatch_size, cfg.batch_size) * min(self.longest.pair, 2 * cfg.max_length)
        stays = self._stays(roles=2, learns=self._learns(1, cfg.optimizer), remembers=True)
        return StagePlan("dpo", stays, {"training": self._training(tokens)}, self.gpu)

    def policy(self) -> StagePlan:
        """Every role on one base."""
        cfg = self.config.policy
        critic = cfg.needs_critic and cfg.critic == "adapter"
        rows = cfg.prompts_per_step * cfg.group_size
        micro = min(cfg.microbatch_size, cfg.minibatch_size, rows)
        prompts = math.ceil(micro / cfg.group_size) if self.size.fused else micro
        tokens = prompts * self.longest.prompt + micro * cfg.sampling.max_new_tokens
        training = self._training(tokens)  # a critic of its own goes second, when the policy's graph is gone
        training["logits"] = self.size.logits(micro * cfg.sampling.max_new_tokens, gpu=self.gpu)
        roles = 2 + (0 if self.config.reward is None else 1 + bool(self.config.reward.judge)) + critic
        return StagePlan(
            "policy",
            self._stays(roles=roles, learns=self._learns(1 + critic, cfg.optimizer), remembers=False),
            {"sampling": self._sampling(cfg.prompts_per_step, rows, self.longest.prompt), "training": training},
            self.gpu,
        )

    def evaluate(self) -> StagePlan:
        """Nothing learns."""
        cfg = self.config.evaluate
        sampling = cfg.sampling or self.config.policy.sampling
        prompt = self.longest.evaluated - sampling.max_new_tokens
        judges = 0 if self.config.reward is None else len(self.config.reward.judge_names)
        if not any(judge.kind == "ensemble" for judge in cfg.judges.values()):
            judges = min(judges, 1)
        return StagePlan(
            "evaluate",
            self._stays(roles=3 + judges + (self.config.dpo is not None), learns=0.0, remembers=False),
            {
                "sampling": self._sampling(cfg.batch_size, cfg.batch_size, prompt, sampling.max_new_tokens),
                "judging": {"activations": self.size.passing(cfg.batch_size // 2 * self.longest.evaluated, self.width)},
                **{f"judging by {name}": self._judging(name) for name in self.judges},
            },
            self.gpu,
        )

    def _judging(self, name: str) -> dict[str, float]:
        """A model of a judge's own, which reads a prompt with both answers."""
        size, rows = self.judges[name]
        return {
            "its model": size.base(self.width, "none") + size.wide_head(self.width, gpu=self.gpu),
            "activations": size.passing(rows * 2 * self.longest.evaluated, self.width),
        }

    def _stays(self, *, roles: int, learns: float, remembers: bool) -> dict[str, float]:
        role = self.size.role(self.width)
        boundary = 0.0
        if remembers and self.config.lora is not None and self.size.adapted < self.size.layers:
            boundary = min(self.config.lora.states_mb * 2.0**20, self.longest.kept * self.size.hidden * self.width)
        return {
            "libraries": 0.0 if self.gpu else libraries(),
            "base": self.size.base(self.width, self.config.model.quantization)
            + self.size.wide_head(self.width, gpu=self.gpu),
            "roles" if self.size.whole else "adapters": roles * role,
            "optimiser": learns,
            "kept states": boundary,
        }

    def _learns(self, roles: int, optimizer: OptimizerName) -> float:
        """Bytes of what learning keeps of some roles: gradient, best weights so far, Adam's two moments."""
        moments = 2 * self.size.role(self.width) if optimizer == "adamw" else 2.0 * self.size.adapter
        return roles * (2 * self.size.role(self.width) + moments)

    def _training(self, tokens: float) -> dict[str, float]:
        checkpointing = self.config.model.gradient_checkpointing
        return {
            "activations": self.size.kept(tokens, self.width, checkpointing=checkpointing)
            + self.size.passing(tokens, self.width),
            "logits": self.size.logits(tokens, gpu=self.gpu),
        }

    def _sampling(self, prompts: int, rows: int, prompt: int, new: int | None = None) -> dict[str, float]:
        room = self.config.policy.sampling.max_new_tokens if new is None else new
        quantised = self.config.model.quantization != "none"
        states = rows * (prompt + room) * self.size.hidden * self.width
        return {
            "decoder's weights": 0.0 if quantised else self.size.copy(self.width, gpu=self.gpu),
            "keys and values": self.size.cache(rows, prompt + room, self.width),
            "prompts": self.size.cache(prompts, prompt, self.width) + self.size.passing(prompts * prompt, self.width),
            "logits": 3.0 * 4 * rows * self.size.vocabulary,
            "boundary states": float(states) if self.size.adapted < self.size.layers else 0.0,
        }


# What to try when it doesn't fit, the gentlest first: label, and what changes.
REMEDIES: tuple[tuple[str, dict[str, Any]], ...] = (
    ("half the microbatch", {}),
    ("gradient checkpointing", {"model": {"gradient_checkpointing": True}}),
    ("adapters on the upper half", {"lora": {"layers": "upper"}}),
    ("a 4-bit base", {"model": {"quantization": "4bit"}, "lora": {}}),  # which carries adapters
)


def remedies(config: Config, longest: Lengths | None = None) -> dict[str, float]:
    """Peak over all stages, in bytes, if one thing were changed, by its label; no change moves what `plan` takes for
    the longest rows."""
    found: dict[str, float] = {}
    for label, changes in REMEDIES:
        other = _changed(config, changes) if changes else _halved(config)
        if other != config:
            found[label] = max(one.peak for one in plan(other, longest))
    return found


def _changed(config: Config, changes: Mapping[str, Mapping[str, Any]]) -> Config:
    dumped = config.model_dump()
    return parse_config({**dumped, **{name: {**(dumped[name] or {}), **change} for name, change in changes.items()}})


def _halved(config: Config) -> Config:
    half = {
        name: {"microbatch_size": max(1, getattr(config, name).microbatch_size // 2)}
        for name in ("sft", "reward", "dpo", "policy")
        if getattr(config, name) is not None
    }
    return _changed(config, half)


def schools(size: Footprint) -> dict[str, float]:
    """Bytes of weights, gradients and Adam for three ways to train the same model, so that one sees why LoRA."""
    learned = size.adapter * ADAPTER * 4
    return {
        "full fine-tuning, Adam, fp32: weights 4, gradient 4, moments 8 bytes a parameter": 16.0 * size.parameters,
        "LoRA on a frozen base in fp32": 4.0 * size.parameters + learned,
        "LoRA on a frozen base in bf16": 2.0 * size.parameters + learned,
        "LoRA on a frozen 4-bit base (NF4)": size.base(2, "4bit") + learned,
    }


def available(config: Config) -> float:
    """Bytes of memory of the device that the config chooses."""
    device = choose_device(config.model.device)
    if device.type == "cuda":
        return float(torch.cuda.get_device_properties(device).total_memory)
    return float(psutil.virtual_memory().total)
