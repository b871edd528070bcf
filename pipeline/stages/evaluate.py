"""Did the model get better? Base, SFT and policy answer the same held-out prompts; an independent judge compares."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch

from pipeline.checkpoints import Checkpoints
from pipeline.config import Config
from pipeline.data.schema import prompt_text
from pipeline.evaluation.compare import compare, describe
from pipeline.evaluation.judges.protocol import Answer, ByScore, Scorer
from pipeline.evaluation.judges.reward import RewardModelScorer
from pipeline.evaluation.standing import against, differences, prompt_labels, round_robin, slices, standing
from pipeline.evaluation.statistics import detectable
from pipeline.lm.backbone import Backbone
from pipeline.lm.generate import Completions
from pipeline.lm.policy import rollout_logprobs, to_rollout
from pipeline.lm.reward import RewardModel
from pipeline.progress import bar
from pipeline.rl.kl import kl_k1, kl_k3
from pipeline.rundir import RunDir, StageDir, StageResult
from pipeline.stages.answering import Asked, Groups, answers_from, best_of, restore_systems, sample, systems_of
from pipeline.stages.inputs import demonstrations, encode_prompts, load_backbone, machine, read
from pipeline.stages.judges import build_judges, headline_judge
from pipeline.stages.people import people_metrics
from pipeline.stages.rewarded import JUDGE, PaidScorer, Values, figures, rewarded
from pipeline.stages.verdicts import (
    ByPair,
    ask_judges,
    compare_pairs,
    first_outcomes,
    from_rows,
    judge_metrics,
    to_rows,
)

# (winner asked about, baseline); the first is the headline.
PAIRS = (
    ("policy", "sft"),
    ("sft", "base"),
    ("policy", "base"),
    ("policy", "best_of_n"),
    ("best_of_n", "sft"),
    ("policy", "dpo"),
    ("dpo", "sft"),
)


Remembering = RewardModelScorer | PaidScorer


@dataclass
class Found:
    """What an evaluation knows so far; all of it goes into its checkpoints."""

    judge: Remembering
    reward: Remembering
    answers: dict[str, Groups] = field(default_factory=dict)  # by system
    divergence: dict[str, float] = field(default_factory=dict)
    rewarded: dict[str, Values] = field(default_factory=dict)  # by system
    verdicts: dict[str, ByPair] = field(default_factory=dict)  # by further judge

    def state(self) -> dict[str, Any]:
        """Plain values."""
        rows = {name: [[asdict(answer) for answer in rows] for rows in found] for name, found in self.answers.items()}
        scored = {"rewards": self.reward.known, "scores": self.judge.known}
        told = {"divergence": self.divergence, "rewarded": self.rewarded, "verdicts": to_rows(self.verdicts)}
        return {"answers": rows, **scored, **told}

    def restore(self, state: Mapping[str, Any] | None) -> None:
        """Take over what another process left; None = nothing."""
        if state is None:
            return
        for name, found in state["answers"].items():
            self.answers[name] = [[Answer(**row) for row in rows] for rows in found]
        self.divergence, self.rewarded = state["divergence"], state["rewarded"]
        self.verdicts = from_rows(state["verdicts"])
        self.reward.known, self.judge.known = state["rewards"], state["scores"]


def run(config: Config, run_dir: RunDir, out: StageDir, checkpoints: Checkpoints) -> StageResult:
    """Sample, judge, compare."""
    cfg = config.evaluate
    source = read(config, cfg.data, "prompts")
    backbone, judge_name = load_roles(config, run_dir)
    asked = encode_prompts(backbone.chat, source)
    found = Found(*scorers(config, backbone, asked, judge_name))
    found.restore(checkpoints.latest("evaluate"))

    def keep() -> None:
        if backbone.lower is not None:
            backbone.lower.forget()  # or the next figures would depend on these in the last digit
        checkpoints.step("evaluate", found.state)

    for _ in answer_all(config, backbone, asked, found):
        keep()
    ask_judges(build_judges(config, run_dir, backbone), found.answers, cfg.judge_pairs, found.verdicts, keep)
    own = compare_pairs(ByScore(found.judge), found.answers, cfg.judge_pairs)
    out.sample(side_by_side(asked, found, {judge_name: own, **found.verdicts}))
    return out.finish(
        {
            "judge": judge_name,
            **judge_accuracy(config, run_dir, judge_name),
            "prompts": len(asked),
            "samples": cfg.samples,
            "best_of": cfg.best_of,
            "detectable_rate": detectable(len(asked)),
            **comparisons(config, asked, found),
            **judge_metrics(found.verdicts, own),
            **people_metrics(config, run_dir, found.answers, {judge_name: own, **found.verdicts}),
            **found.divergence,
            **figures(found.rewarded),
            **describe(found.answers, demonstrations(config)),
        },
        data={"evaluate": source.account(prompts=len(asked))},
        **machine(backbone),
    )


def load_roles(config: Config, run_dir: RunDir) -> tuple[Backbone, str]:
    """The base with everybody who answers or judges, and the name of the run's own judge."""
    backbone = load_backbone(config)
    judge = JUDGE if config.reward is None else headline_judge(run_dir)
    for stage, name in (("sft", "sft"), ("policy", "policy"), ("dpo", "dpo"), ("reward", "reward"), ("reward", judge)):
        if getattr(config, stage) is None:
            continue
        if name not in backbone.roles:
            backbone.restore(name, run_dir.artifact(stage, name))
    restore_systems(config, backbone)
    return backbone, judge


def scorers(config: Config, backbone: Backbone, asked: Asked, judge: str) -> tuple[Remembering, Remembering]:
    """The run's own judge and what paid the policy; without a reward section the functions that paid are both."""
    if config.reward is None:
        paid = PaidScorer(config, asked)
        return paid, paid
    size = config.evaluate.batch_size // 2 or 1
    decides, paid_by = (RewardModelScorer(RewardModel(backbone, name), batch_size=size) for name in (judge, "reward"))
    return decides, paid_by


def judge_accuracy(config: Config, run_dir: RunDir, judge: str) -> dict[str, float]:
    """How well the run's own judge orders test pairs; functions have none."""
    if config.reward is None:
        return {}
    metrics = run_dir.require("reward").metrics
    return {"judge_accuracy": metrics["judge_accuracy" if judge == "judge" else "accuracy"]}


def answer_all(config: Config, backbone: Backbone, asked: Asked, found: Found) -> Iterator[str]:
    """Let every system answer that hasn't yet, and score what it said; yields its name when it is done."""
    cfg, systems = config.evaluate, systems_of(config)
    each = {name: len(asked) * cfg.samples * system.candidates for name, system in systems.items()}
    total, done = sum(each.values()), sum(each[name] for name in found.answers)
    with bar("evaluate", total, visible=config.logging.progress, done=done) as progress:
        for offset, (name, system) in enumerate(systems.items()):
            if name in found.answers:
                continue
            if system.outputs is not None:
                groups = answers_from(system.outputs, asked, cfg.samples, backbone.chat)
                progress.advance(each[name], {"system": name})
            else:
                # Different noise for each system: best-of-n must not contain the very answer it is compared with.
                generator = torch.Generator(backbone.device).manual_seed(config.seed + offset)
                count = system.candidates * cfg.samples
                groups, parts = sample(backbone, system.adapter, asked, count, config, generator, progress)
                if name in ("policy", "dpo"):
                    kl = kl_to_reference(backbone, name, parts, config)
                    found.divergence |= kl if name == "policy" else {f"dpo_{key}": value for key, value in kl.items()}
            found.answers[name] = best_of(groups, system.candidates, found.reward)
            found.rewarded[name] = rewarded(config, asked, found.answers[name])
            for scorer in (found.judge, found.reward):
                scorer.score([answer for group in found.answers[name] for answer in group])
            yield name


def comparisons(config: Config, asked: Asked, found: Found) -> dict[str, Any]:
    """What the run's own judge says: win rates, everybody's standing, where the policy wins, and mean scores."""
    cfg, judge, answers = config.evaluate, ByScore(found.judge), found.answers
    pairs = [*PAIRS, *(("policy", name) for name in cfg.systems)]
    rates = compare(judge, answers, pairs, resamples=cfg.bootstrap, seed=config.seed)
    outcomes = round_robin(judge, answers)
    others = [name for name in answers if name not in ("base", "sft", "policy")]
    apart = differences(outcomes, of="policy", over="sft", among=others)
    labels = prompt_labels([prompt.meta.get("category") for prompt, _ in asked], [len(ids) for _, ids in asked])
    return {
        **{f"win_rate.{pair}{suffix}": v for pair, rate in rates.items() for suffix, v in rate.figures().items()},
        **{f"difference.{key}": value for key, value in apart.items()},
        "standing": standing(outcomes, anchor="sft", seed=config.seed),
        "slices": slices(against(outcomes, "policy", "sft"), labels),
        **{f"judge_score.{name}": float(np.mean(values)) for name, values in by_prompt(found.judge, answers).items()},
        **{f"reward_score.{name}": float(np.mean(values)) for name, values in by_prompt(found.reward, answers).items()},
    }


def by_prompt(scorer: Scorer, answers: Mapping[str, Groups]) -> dict[str, list[list[float]]]:
    """By system and prompt."""
    return {name: [scorer.score(group) for group in groups] for name, groups in answers.items()}


def kl_to_reference(backbone: Backbone, adapter: str, parts: Sequence[Completions], config: Config) -> dict[str, float]:
    """KL(adapter ‖ SFT) on the adapter's own samples: k1 per sequence, k3 per token. Nats."""
    temperature = (config.evaluate.sampling or config.policy.sampling).temperature
    per_sequence: list[float] = []
    per_token = tokens = 0.0
    for completions in parts:
        rollout = to_rollout(backbone, completions)
        batch = config.evaluate.batch_size // 2 or 1
        policy, reference = (
            rollout_logprobs(backbone, name, rollout, temperature=temperature, batch_size=batch)
            for name in (adapter, "sft")
        )
        per_sequence += kl_k1(policy, reference).sum(1).tolist()
        per_token += kl_k3(policy, reference)[rollout.mask].sum().item()
        tokens += int(rollout.mask.sum())
    return {"kl": sum(per_sequence) / len(per_sequence), "kl_per_token_k3": per_token / max(1.0, tokens)}


def side_by_side(asked: Asked, found: Found, verdicts: dict[str, ByPair]) -> list[dict[str, Any]]:
    """One row per prompt with every system's first answer, its scores, the texts of its `others` where there are more,
    and the judges' verdicts on policy vs SFT, for samples.jsonl. `messages` has a conversation's turns."""
    judged, paid = by_prompt(found.judge, found.answers), by_prompt(found.reward, found.answers)
    return [
        {
            "prompt": prompt_text(prompt.messages),
            **({"messages": list(prompt.messages)} if len(prompt.messages) > 1 else {}),
            "category": prompt.meta.get("category"),
            "answers": {
                name: {
                    "text": groups[index][0].text,
                    "tokens": len(groups[index][0].ids),
                    "stopped": groups[index][0].stopped,
                    "judge": round(judged[name][index][0], 4),
                    "reward": round(paid[name][index][0], 4),
                    **({"others": [other.text for other in groups[index][1:]]} if len(groups[index]) > 1 else {}),
                }
                for name, groups in found.answers.items()
            },
            "verdicts": first_outcomes(verdicts, index),
        }
        for index, (prompt, _) in enumerate(asked)
    ]
