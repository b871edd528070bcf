"""The policy stage: its rules in numbers, every algorithm end to end, and a score that really rises."""

import json
import math
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.testing import assert_close

from pipeline.gates import GateError
from pipeline.lm.policy import LanguagePolicy
from pipeline.lm.reward import RewardModel
from pipeline.rl.rollout import Rollout
from pipeline.rundir import RunDir, read_jsonl
from pipeline.stages import learner
from pipeline.stages import policy as stage
from tests.lm.builders import tiny
from tests.stages.builders import config, train

# ---- rules --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("schedule", "warmup", "expected"),
    [
        ("constant", 0, [1.0, 1.0, 1.0, 1.0]),
        ("linear", 0, [1.0, 0.75, 0.5, 0.25]),
        ("constant", 3, [0.25, 0.5, 0.75, 1.0]),
        ("linear", 1, [0.5, 0.75, 0.5, 0.25]),
    ],
)
def test_the_learning_rate_factor(tmp_path: Path, schedule: str, warmup: int, expected: list[float]) -> None:
    cfg = config(tmp_path, steps=4, schedule=schedule, warmup_steps=warmup).policy
    assert [learner.rate_factor(cfg, step) for step in range(4)] == pytest.approx(expected)


def test_prompt_batches_leave_none_out_and_reorder_every_pass() -> None:
    prompts = list("abcdefg")
    batches = list(stage.prompt_batches(prompts, 3, 7, seed=0))  # 21 = three passes
    assert [len(batch) for batch in batches] == [3] * 7
    drawn = [prompt for batch in batches for prompt in batch]
    passes = [drawn[i : i + 7] for i in (0, 7, 14)]
    assert all(sorted(one) == prompts for one in passes)
    assert passes[0] != passes[1] != passes[2]
    assert batches == list(stage.prompt_batches(prompts, 3, 7, seed=0))
    assert batches != list(stage.prompt_batches(prompts, 3, 7, seed=1))


def test_a_batch_larger_than_the_data_repeats_prompts_evenly() -> None:
    (batch,) = stage.prompt_batches(list("ab"), 6, 1, seed=0)
    assert Counter(batch) == {"a": 3, "b": 3}


@pytest.mark.parametrize(
    ("algorithm", "loss", "aggregate"),
    [
        ("ppo", "ppo_clip", "token"),
        ("reinforce", "policy_gradient", "token"),
        ("reinforce++", "ppo_clip", "token"),
        ("rloo", "ppo_clip", "token"),
        ("grpo", "ppo_clip", "sequence"),
        ("dr_grpo", "ppo_clip", "constant"),
    ],
)
def test_loss_and_normaliser_of_each_algorithm(tmp_path: Path, algorithm: str, loss: str, aggregate: str) -> None:
    objective = learner.objective(config(tmp_path, algorithm=algorithm).policy)
    assert (objective.policy_loss, objective.aggregate, objective.max_length) == (loss, aggregate, 4)


def test_what_the_user_names_beats_auto(tmp_path: Path) -> None:
    assert learner.objective(config(tmp_path, algorithm="grpo", aggregate="token").policy).aggregate == "token"


def test_the_kl_is_priced_once(tmp_path: Path) -> None:
    """In the reward or in the loss, never in both."""
    inside = learner.objective(config(tmp_path, kl_in="loss", kl_loss="k3", kl_coef=0.3).policy)
    assert (inside.kl_coef, inside.kl_estimator) == (0.3, "k3")
    outside = learner.objective(config(tmp_path, kl_in="reward", kl_coef=0.3).policy)
    assert (outside.kl_coef, outside.kl_estimator) == (0.0, None)


# ---- whole runs ---------------------------------------------------------------------------------------------


VARIANTS: dict[str, dict[str, Any]] = {
    "ppo, critic adapter": {"algorithm": "ppo", "critic": "adapter", "epochs": 2},
    "ppo, shared trunk": {"algorithm": "ppo", "critic": "shared_trunk"},
    "ppo, warm-up and entropy": {"algorithm": "ppo", "critic_warmup_steps": 1, "entropy_coef": 0.01},
    "ppo, adaptive price": {"algorithm": "ppo", "kl_target": 0.5},
    "reinforce": {"algorithm": "reinforce", "group_size": 1, "prompts_per_step": 4, "missing_eos": "penalty"},
    "reinforce++": {"algorithm": "reinforce++"},
    "rloo": {"algorithm": "rloo"},
    "rloo, k2 in the loss": {"algorithm": "rloo", "kl_in": "loss", "kl_loss": "k2"},
    "grpo, k3 in the loss": {"algorithm": "grpo", "kl_in": "loss", "kl_loss": "k3"},
    "dr_grpo": {"algorithm": "dr_grpo"},
}


@pytest.mark.parametrize("name", VARIANTS)
def test_every_algorithm_runs_with_finite_figures(before: RunDir, tmp_path: Path, model: str, name: str) -> None:
    # Nearly all of these answers meet the limit; scored alike for it, a group would teach nothing.
    cfg = config(tmp_path, model, **{"missing_eos": "penalty"} | VARIANTS[name])
    metrics, rows = train(before, cfg)
    assert len(rows) == 2
    assert all(math.isfinite(value) for row in rows for value in row.values())
    assert all(math.isfinite(value) for value in metrics.values() if isinstance(value, float))
    assert metrics["kl_first"] == 0.0
    assert metrics["first_ratio_error"] <= 1e-5
    assert metrics["sampler_mismatch"] <= 1e-4
    assert ("value/loss" in rows[0]) == (cfg.policy.algorithm == "ppo")
    assert ("policy/kl_loss" in rows[0]) == (cfg.policy.kl_in == "loss")
    assert abs(rows[1]["objective/kl"]) > 1e-5 or "warm-up" in name  # the policy has moved, by more than rounding
    has_critic = (before.path / "policy" / "critic").is_dir()
    assert has_critic == (cfg.policy.algorithm == "ppo" and cfg.policy.critic == "adapter")
    saved = json.loads((before.path / "policy" / "adapter" / "role.json").read_text(encoding="utf-8"))
    assert saved == {"role": "policy", "algorithm": cfg.policy.algorithm}


@pytest.mark.parametrize("critic", ["adapter", "shared_trunk"])
def test_critic_warm_up_leaves_the_policy_where_it_was(before: RunDir, tmp_path: Path, model: str, critic: str) -> None:
    """ "First steps that train the critic only": afterwards the policy still is the reference."""
    options = {"algorithm": "ppo", "critic": critic, "critic_warmup_steps": 2, "critic_learning_rate": 0.01}
    train(before, config(tmp_path, model, **options))
    backbone = tiny(tmp_path, name=model)
    backbone.roles.load("sft", before.artifact("sft", "sft"))
    backbone.roles.load("policy", before.artifact("policy", "policy"))
    ids = backbone.pad([[1, 40, 41, 42]])
    assert torch.equal(backbone.hidden("policy", ids), backbone.hidden("sft", ids))


def test_the_logged_learning_rate_is_the_one_used(before: RunDir, tmp_path: Path, model: str) -> None:
    options = {"algorithm": "rloo", "steps": 3, "warmup_steps": 0, "schedule": "linear", "learning_rate": 0.003}
    _, rows = train(before, config(tmp_path, model, **options))
    assert [row["policy/learning_rate"] for row in rows] == pytest.approx([0.003, 0.002, 0.001], abs=1e-6)


def test_the_adaptive_price_moves_towards_its_target(before: RunDir, tmp_path: Path, model: str) -> None:
    """The KL is far below a target of 50 nats, so the price falls: by a factor 1 − 0.2·n/horizon, n = 4."""
    options = {"algorithm": "rloo", "kl_coef": 0.5, "kl_target": 50.0, "kl_horizon": 8}
    _, rows = train(before, config(tmp_path, model, **options))
    assert [row["objective/kl_coef"] for row in rows] == pytest.approx([0.5, 0.45])


def test_one_seed_one_result(before: RunDir, tmp_path: Path, model: str) -> None:
    def figures(seed: int) -> list[dict[str, Any]]:
        cfg = config(tmp_path, model, algorithm="rloo").model_copy(update={"seed": seed})
        _, rows = train(before, cfg)
        return [{k: v for k, v in row.items() if not k.startswith("time/")} for row in rows]

    first, again, other = figures(0), figures(0), figures(1)
    assert first == again
    assert first != other


@pytest.mark.parametrize("algorithm", ["rloo", "ppo"])
def test_the_fast_path_learns_what_the_plain_one_learns(
    before: RunDir, tmp_path: Path, model: str, algorithm: str
) -> None:
    """Four steps of the same noise: every figure of every step, up to rounding."""
    curves = []
    rules = {"missing_eos": "penalty", "missing_eos_value": 0.0}  # nobody ends here, and all would be worth the same
    for fast in (True, False):
        cfg = config(tmp_path, model, algorithm=algorithm, steps=4, learning_rate=1e-2, epochs=2, **rules)
        cfg = cfg.model_copy(update={"model": cfg.model.model_copy(update={"fast": fast})})
        _, rows = train(before, cfg)
        curves.append([{k: v for k, v in row.items() if k.startswith(("objective/", "policy/"))} for row in rows])
    assert len(curves[0]) == 4
    for fast_row, plain_row in zip(*curves, strict=True):
        assert fast_row == pytest.approx(plain_row, abs=1e-3)
    assert curves[0][0]["objective/score"] != pytest.approx(curves[0][3]["objective/score"], abs=1e-2)


@pytest.mark.parametrize("algorithm", ["rloo", "ppo"])
def test_the_score_rises_on_an_easy_objective(
    before: RunDir, tmp_path: Path, model: str, monkeypatch: pytest.MonkeyPatch, algorithm: str
) -> None:
    """The reward is the share of tokens whose id is even: one half by chance."""

    def even(self: RewardModel, rollout: Rollout, *, batch_size: int = 16) -> torch.Tensor:
        return ((rollout.actions % 2 == 0) & rollout.mask).sum(1) / rollout.lengths

    monkeypatch.setattr(RewardModel, "score", even)
    options = {
        "algorithm": algorithm,
        "steps": 25,
        "prompts_per_step": 4,
        "group_size": 8,
        "minibatch_size": 16,
        "microbatch_size": 16,
        "learning_rate": 0.02,
        "critic_learning_rate": 0.02,
        "kl_coef": 0.0,
        "missing_eos": "penalty",
        "missing_eos_value": 0.0,
        "sampling": {"max_new_tokens": 6, "temperature": 1.0},
    }
    metrics, rows = train(before, config(tmp_path, model, **options))
    assert rows[0]["objective/score"] == pytest.approx(0.5, abs=0.15)  # 192 tokens
    assert metrics["score"] > 0.62  # the mean of five steps, 960 tokens: seven standard errors above chance


def test_a_sampler_that_is_off_is_corrected(
    before: RunDir, tmp_path: Path, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It claims half the probability of every token that it drew: the policy's own counts, and twice the advantage."""
    seen: dict[str, list[Any]] = {}
    for name in ("auto", "always"):  # auto: an fp32 sampler is trusted after the first step
        acts, improves, kept = LanguagePolicy.generate, learner.Learner.improve, seen.setdefault(name, [])

        def generate(*args: Any, inner: Any = acts, **options: Any) -> Any:
            rollout = inner(*args, **options)
            return replace(rollout, logprobs=torch.where(rollout.mask, rollout.logprobs - math.log(2), 0.0))

        def improve(*args: Any, inner: Any = improves, to: list[Any] = kept) -> Any:
            to.append(args[1:3])  # the rollout, its advantages
            return inner(*args)

        with monkeypatch.context() as patch:
            patch.setattr(LanguagePolicy, "generate", generate)
            patch.setattr(learner.Learner, "improve", improve)
            options = {"algorithm": "rloo", "recompute_logprobs": name, "learning_rate": 1e-9, "kl_coef": 0.0}
            _, rows = train(before, config(tmp_path, model, **options))
        assert [row.get("policy/sampler_mismatch") for row in rows] == [
            pytest.approx(math.log(2), abs=1e-3),
            pytest.approx(math.log(2), abs=1e-3) if name == "always" else None,
        ]
    for trusted, corrected in zip(seen["auto"], seen["always"], strict=True):
        assert_close(corrected[1], 2 * trusted[1], atol=1e-4, rtol=1e-4)
    assert_close(seen["always"][1][0].logprobs, seen["auto"][1][0].logprobs + seen["auto"][1][0].mask * math.log(2))
    assert rows[1]["policy/first_ratio_error"] <= 1e-5
    assert rows[1]["policy/importance_mean"] == pytest.approx(2.0, rel=1e-3)
    assert rows[1]["policy/importance_max"] == 2.0  # the cap
    assert rows[1]["policy/sampler_kl"] == pytest.approx(2 - 1 - math.log(2), abs=1e-3)  # k3 of half the probability


def test_a_sampler_that_is_another_model_is_refused() -> None:
    """Log-probs off by 2 nats: k3 = e² − 1 − 2 = 4.4 a token."""
    real = torch.ones(1, 2, dtype=torch.bool)
    zeros = torch.zeros(1, 2)
    rollout = Rollout({}, zeros.long(), zeros, zeros, real, ~real, ~real)
    far = torch.full((1, 2), -2.0)
    with pytest.raises(FloatingPointError, match="max_sampler_kl"):
        stage.sampler_mismatch(rollout, far, 1.0)
    assert stage.sampler_mismatch(rollout, far, 10.0)["policy/sampler_mismatch"] == 2.0


def test_in_bf16_every_step_recomputes(before: RunDir, tmp_path: Path, model: str) -> None:
    cfg = config(tmp_path, model, algorithm="ppo")
    cfg = cfg.model_copy(update={"model": cfg.model.model_copy(update={"dtype": "bfloat16"})})
    metrics, rows = train(before, cfg)
    assert metrics["kl_first"] == 0.0
    assert all(row["policy/sampler_mismatch"] > 0 for row in rows)
    assert all(math.isfinite(value) for row in rows for value in row.values())


# ---- alarms and gates ---------------------------------------------------------------------------------------


def test_an_alarm_ends_the_stage_and_takes_it_back(before: RunDir, tmp_path: Path, model: str) -> None:
    alarms = {"window": 1, "max_kl": 1e-9, "stop": ["kl"]}
    cfg = config(tmp_path, model, steps=6, missing_eos="penalty", learning_rate=1e-2, warmup_steps=0, alarms=alarms)
    metrics, rows = train(before, cfg)
    assert metrics["stopped_by"] == "kl"
    assert metrics["alarms"]["kl"] == metrics["steps"] == len(rows) < 6
    assert 1 <= metrics["returned_to"] <= len(rows)


def test_an_alarm_that_only_warns_lets_it_go_on(before: RunDir, tmp_path: Path, model: str) -> None:
    alarms = {"window": 1, "max_kl": 1e-9, "stop": []}
    cfg = config(tmp_path, model, steps=3, missing_eos="penalty", learning_rate=1e-2, warmup_steps=0, alarms=alarms)
    metrics, rows = train(before, cfg)
    assert len(rows) == 3
    assert "kl" in metrics["alarms"]
    assert "stopped_by" not in metrics


def test_a_policy_that_does_not_start_at_its_reference_is_refused(
    before: RunDir, tmp_path: Path, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After one step, not after all of them."""
    monkeypatch.setattr(stage, "kl_k1", lambda a, b: a - b + 0.1)
    with pytest.raises(GateError, match="starts_at_reference"):
        train(before, config(tmp_path, model))
    assert len(read_jsonl(before.path / "policy" / "metrics.jsonl")) == 1
