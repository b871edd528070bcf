"""What a policy step was like: figures for metrics.jsonl, texts for samples.jsonl, times by phase."""

import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.config import PolicyConfig
from pipeline.data.schema import prompt_text
from pipeline.evaluation import overoptimisation
from pipeline.lm.backbone import Backbone
from pipeline.lm.policy import completion_texts
from pipeline.rl.advantages import zero_variance_share
from pipeline.rl.rollout import Rollout

LAST = 0.2  # share of the steps whose mean is reported as the outcome
SHOWN = 4  # prompts whose first completion is kept to read


def figures(rollout: Rollout, scores: Tensor, kl: Tensor, kl_coef: float, cfg: PolicyConfig) -> dict[str, float]:
    """What one step's completions were like; `scores` and `kl` are per completion [B]."""
    returns = rollout.rewards.sum(1)  # the final score after its rules, minus the KL price when it is in the reward
    row: dict[str, float] = {
        "objective/score": scores.mean().item(),
        "objective/score_std": scores.std(correction=0).item(),
        "objective/return": returns.mean().item(),
        "objective/kl": kl.mean().item(),
        "objective/kl_coef": kl_coef,
        "objective/tokens": rollout.lengths.float().mean().item(),
        "objective/eos_rate": rollout.context["stopped"].float().mean().item(),
    }
    if cfg.group_size > 1:
        row["objective/equal_groups"] = zero_variance_share(returns.view(-1, cfg.group_size))
    return row


def sample_rows(
    step: int, batch: list[Any], rollout: Rollout, scores: Tensor, kl: Tensor, group_size: int, backbone: Backbone
) -> list[dict[str, Any]]:
    """The first completion of some of the step's prompts, to read."""
    texts = completion_texts(backbone, rollout)
    rows = []
    for index, (prompt, _) in enumerate(batch[:SHOWN]):
        row = index * group_size
        rows.append(
            {
                "step": step,
                "prompt": prompt_text(prompt.messages),
                "completion": texts[row],
                "score": round(scores[row].item(), 4),
                "kl": round(kl[row].item(), 4),
                "stopped": bool(rollout.context["stopped"][row]),
            }
        )
    return rows


def outcome(history: list[dict[str, float]]) -> dict[str, Any]:
    """First and last figures of training, and the median time per iteration with its parts."""
    last = history[-max(1, round(len(history) * LAST)) :]
    mean = {
        name: sum(row[f"objective/{name}"] for row in last) / len(last)
        for name in ("score", "kl", "tokens", "eos_rate")
    }
    terms = [name for name in history[0] if name.startswith("reward/")]
    times = {name: statistics.median(row[name] for row in history) for name in history[0] if name.startswith("time/")}
    return {
        "score_first": history[0]["objective/score"],
        "kl_first": history[0]["objective/kl"],
        "first_ratio_error": history[0].get("policy/first_ratio_error", 0.0),
        "sampler_mismatch": history[0]["policy/sampler_mismatch"],
        **mean,
        **{term.replace("/", "."): sum(row[term] for row in last) / len(last) for term in terms},
        **{f"{term.replace('/', '.')}_first": history[0][term] for term in terms},
        "seconds_per_iteration": times.pop("time/total"),
        **{f"seconds_{name.removeprefix('time/')}": value for name, value in times.items()},
    }


def curves(history: list[dict[str, float]]) -> dict[str, Any]:
    """The score–distance curves of the reward model and of the judge over all steps, under `curve.<who>.<figure>`."""
    found: dict[str, Any] = {}
    for who, key in (("reward", "objective/score"), ("judge", "objective/judge")):
        if key in history[0]:
            kl, scores = (np.array([row[name] for row in history]) for name in ("objective/kl", key))
            curve = overoptimisation.figures(overoptimisation.fit(kl, scores, "rl"))
            found |= {f"curve.{who}.{name}": value for name, value in curve.items()}
    return found


class Clock:
    """Seconds of an iteration by phase; a GPU has finished a phase's work before the next one starts."""

    def __init__(self, device: torch.device) -> None:
        self._gpu = device.type == "cuda"
        self._start = time.perf_counter()
        self._phases: dict[str, float] = {}

    @contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        if self._gpu:
            torch.cuda.synchronize()
        self._phases[f"time/{phase}"] = round(time.perf_counter() - start, 4)

    def seconds(self) -> dict[str, float]:
        """Each phase and the total, as time/<phase>."""
        return {**self._phases, "time/total": round(time.perf_counter() - self._start, 4)}
