"""`align selftest`: does the mathematics hold on this machine, in this dtype? Five checks with known answers."""

import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.config import parse_config
from pipeline.lm.backbone import Backbone
from pipeline.lm.options import choose_device, choose_dtype
from pipeline.lm.policy import LanguagePolicy, rollout_logprobs
from pipeline.progress import bar
from pipeline.rl.advantages import estimate_advantages
from pipeline.rl.kl import kl_k1
from pipeline.rl.objective import Evaluation, Objective
from pipeline.rl.returns import gae
from pipeline.rl.rollout import Rollout
from pipeline.rl.update import update
from pipeline.rundir import RunDir, summary
from pipeline.stages.chain import run_all

LORA: dict[str, Any] = {"r": 4, "alpha": 8.0, "dropout": 0.0, "targets": "all-linear", "layers": "all"}
PROMPTS = [[1, 40, 41, 42], [1, 50], [1, 60, 61, 62, 63, 64, 65]]


@dataclass(frozen=True)
class Check:
    """What was held against what, how far apart they are, and how far they may be."""

    name: str
    measured: float
    limit: float
    seconds: float

    @property
    def holds(self) -> bool:
        """Also False for NaN."""
        return self.measured <= self.limit


class Bandit(nn.Module):
    """A policy of one prompt and five answers."""

    def __init__(self, reference: Tensor) -> None:
        super().__init__()
        self.logits = nn.Parameter(reference.log())

    def evaluate(self, context: Any, actions: Tensor) -> Evaluation:
        """log π and entropy of actions [b,1]."""
        table = torch.log_softmax(self.logits, 0)
        entropy = -(table.exp() * table).sum()
        return Evaluation(table[actions], entropy.expand(actions.shape), None)


def bandit(device: torch.device) -> float:
    """Total variation between what REINFORCE with a price on KL finds and π* ∝ π_ref e^{r/β}, β = 1."""
    rewards = torch.tensor([1.0, 0.0, 0.5, -1.0, 2.0], device=device)
    reference = torch.tensor([0.4, 0.3, 0.15, 0.1, 0.05], device=device)
    generator = torch.Generator(device).manual_seed(0)
    policy = Bandit(reference)
    steps, average = 200, torch.zeros_like(reference)
    optimizer = torch.optim.Adam(policy.parameters(), lr=0.05)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.05, steps)
    for step in range(steps):
        with torch.no_grad():
            probabilities = torch.softmax(policy.logits, 0)
            actions = torch.multinomial(probabilities, 512, replacement=True, generator=generator)[:, None]
            logprobs = policy.evaluate(None, actions).logprobs
        real = torch.ones_like(actions, dtype=torch.bool)
        rollout = Rollout({"rows": actions}, actions, logprobs, torch.zeros_like(logprobs), real, real, ~real)
        kl = kl_k1(logprobs, reference.log()[actions])
        rollout = rollout.with_rewards(-kl, final=rewards[actions[:, 0]])
        advantages, returns = estimate_advantages("reinforce", rollout)
        update(
            policy, optimizer, rollout, advantages, returns, Objective(policy_loss="policy_gradient"),
            minibatch_size=512,
        )  # fmt: skip
        schedule.step()
        if step >= steps * 2 // 3:
            average += torch.softmax(policy.logits.detach(), 0) / (steps - steps * 2 // 3)
    return (average - torch.softmax(reference.log() + rewards, 0)).abs().sum().item() / 2


def advantages(device: torch.device) -> float:
    """Largest difference between `gae` and its definition, Σ_k Π(γλ) δ, summed term by term."""
    generator = torch.Generator().manual_seed(0)
    rewards, values, following = (torch.randn(3, 20, generator=generator) for _ in range(3))
    discounts = 0.95 * (torch.rand(3, 20, generator=generator) > 0.1)
    lambdas = 0.9 * (torch.rand(3, 20, generator=generator) > 0.1)
    deltas = rewards + discounts * following - values
    expected = torch.zeros_like(deltas)
    for row in range(3):
        for start in range(20):
            weight = 1.0
            for end in range(start, 20):
                expected[row, start] += weight * deltas[row, end]
                weight *= float(discounts[row, end] * lambdas[row, end])
    found = gae(*(tensor.to(device) for tensor in (rewards, values, following, discounts, lambdas)))
    return (found.cpu() - expected).abs().max().item()


@torch.no_grad()
def adapters(backbone: Backbone, folder: Path, options: dict[str, Any]) -> float:
    """Largest difference in logits between three adapters on one base and three models with one adapter each."""
    ids = backbone.pad(PROMPTS)
    worst = 0.0
    for name in ("sft", "reward", "policy"):
        backbone.save(name, folder / name)
        alone = Backbone.load("tiny", lora=LORA, **options)
        alone.restore(name, folder / name)
        together, apart = (one.logits(one.hidden(name, ids)) for one in (backbone, alone))
        worst = max(worst, (together - apart).abs().max().item())
    return worst


def sampler(backbone: Backbone) -> float:
    """Largest difference between log-probs kept while sampling and those of a training pass, in nats."""
    policy = LanguagePolicy(backbone, temperature=0.7)
    generator = torch.Generator(backbone.device).manual_seed(0)
    rollout = policy.generate(PROMPTS, group_size=4, max_new_tokens=12, generator=generator)
    fresh = rollout_logprobs(backbone, "policy", rollout, temperature=0.7, batch_size=6)
    return (fresh - rollout.logprobs)[rollout.mask].abs().max().item()


def pipeline(folder: Path, options: dict[str, Any]) -> float:
    """KL and ratio of a whole tiny run's first policy step, which are to be 0 and 1; infinite if it doesn't end."""
    turns = [(f"What is {n}?", f"It is {n + 1}.", "No idea at all.") for n in range(24)]
    for name, keys in (("sft", ("prompt", "completion")), ("pairs", ("prompt", "chosen", "rejected"))):
        rows = (json.dumps(dict(zip(keys, turn, strict=False))) for turn in turns)
        (folder / f"{name}.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")
    demonstrations, pairs = ({"data": {"source": str(folder / f"{name}.jsonl")}} for name in ("sft", "pairs"))
    small = {"steps": 2, "prompts_per_step": 4, "group_size": 2, "minibatch_size": 4, "microbatch_size": 4}
    config = parse_config(
        {
            "run_dir": str(folder / "run"),
            "model": {"name": "tiny", **options},
            "lora": {"r": 4, "alpha": 8.0},
            "sft": demonstrations | {"epochs": 1},
            "reward": pairs | {"epochs": 1, "calibration_samples": 8},
            "policy": demonstrations | small | {"sampling": {"max_new_tokens": 8}},
            "evaluate": demonstrations | {"best_of": 1, "bootstrap": 50},
            "gates": {"skip": ["sft_learns", "sft_ends", "reward_beats_chance", "reward_beats_length"]},
            "logging": {"progress": False},
        }
    )
    run_all(config)
    figures = summary(RunDir(folder / "run"))
    if "evaluate.win_rate.policy_vs_sft" not in figures:
        return float("inf")
    return max(abs(float(figures["policy.kl_first"])), float(figures["policy.first_ratio_error"]))


def selftest(device: str = "auto", dtype: str = "auto", *, visible: bool = True) -> list[Check]:
    """All checks, in order."""
    where = choose_device(device)
    exact = choose_dtype(dtype, where) == torch.float32
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        options: dict[str, Any] = {"device": device, "dtype": dtype, "cache_dir": str(folder / "models")}
        backbone = Backbone.load("tiny", lora=LORA, **options)
        for seed, adapter in enumerate(("sft", "reward", "policy")):
            backbone.roles.add(adapter)
            _scatter(backbone, adapter, seed)
        # In bf16 an adapter that is folded into the sampler's weights is rounded with them.
        checks: list[tuple[str, Callable[[], float], float]] = [
            ("bandit: sampled optimum beside its closed form (total variation)", lambda: bandit(where), 0.03),
            ("GAE beside its definition, term by term", lambda: advantages(where), 1e-5),
            ("three adapters on one base beside three models (logits)", lambda: adapters(backbone, folder, options),
             1e-5 if exact else 0.05),
            ("log-probs kept while sampling beside a training pass (nats)", lambda: sampler(backbone),
             1e-4 if exact else 0.5),
            ("a whole tiny run: KL and ratio of the first step (from 0 and 1)", lambda: pipeline(folder, options),
             1e-5 if exact else 0.1),
        ]  # fmt: skip
        found = []
        with bar("selftest", len(checks), visible=visible) as progress:
            for title, measure, limit in checks:
                start = time.perf_counter()
                found.append(Check(title, measure(), limit, time.perf_counter() - start))
                progress.advance()
        return found


@torch.no_grad()
def _scatter(backbone: Backbone, name: str, seed: int) -> None:
    """Random weights, so that the adapter does something."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in backbone.roles.parameters_of(name):
        parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))
