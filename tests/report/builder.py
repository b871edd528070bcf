"""A finished run folder without any training: plausible figures from closed formulas, every file and key."""

import json
import math
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from pipeline.evaluation.statistics import detectable, wilson
from pipeline.rundir import STAGES

ENVIRONMENT = {
    "python": "3.11.7",
    "system": "Linux x86_64",
    "device": "cpu",
    "dtype": "float32",
    "torch": "2.9.0",
}
Texts = Mapping[str, Sequence[str]]
TEXTS: Texts = {
    "prompt": ["How long do I boil an egg?", "My tea is bitter.", "What goes with rice?"],
    "base": ["Boil an egg. Boil an egg. Boil", "Tea is a drink. Tea is"],
    "sft": ["Seven minutes gives a soft yolk.", "Use cooler water and a shorter steep."],
    "policy": [
        "Seven minutes, then cold water: soft yolk, easy peel.",
        "Steep it for two minutes, not five.",
    ],
    "best_of_n": ["Eight minutes for a firm white.", "Try less leaf, and water off the boil."],
}


def build(
    root: Path,
    *,
    stages: Sequence[str] = STAGES,
    prompts: int = 200,
    steps: int = 30,
    policy_wins: float = 0.78,
    sft_wins: float = 0.9,
    texts: Texts = TEXTS,
    metrics: Mapping[str, Any] | None = None,
) -> Path:
    """Write a run folder whose named stages are finished; `metrics` replaces figures of the evaluation."""
    root.mkdir(parents=True, exist_ok=True)
    config = {
        "seed": 0,
        "run_dir": str(root),
        "model": {"name": "tiny", "cache_dir": "/home/somebody/cache"},
        "policy": {
            "algorithm": "ppo",
            "steps": steps,
            "sampling": {"temperature": 0.7, "max_new_tokens": 64},
        },
        "evaluate": {"sampling": None, "best_of": 4},
    }
    (root / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    rng = random.Random(0)
    writers = {"sft": _sft, "reward": _reward, "policy": _policy, "evaluate": _evaluate}
    for stage in stages:
        (root / stage).mkdir(exist_ok=True)
        figures = writers[stage](root / stage, rng, prompts, steps, (policy_wins, sft_wins), texts)
        if stage == "evaluate":
            figures |= metrics or {}
        _result(root / stage, stage, figures)
    return root


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """A JSON-lines file."""
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def change(run: Path, stage: str, **fields: Any) -> None:
    """Replace fields of a stage's result; `metrics` and `environment` are merged into what is there."""
    path = run / stage / "result.json"
    result = json.loads(path.read_text(encoding="utf-8"))
    for name, value in fields.items():
        result[name] = {**result[name], **value} if name in ("metrics", "environment") else value
    path.write_text(json.dumps(result), encoding="utf-8")


def configure(run: Path, **sections: Any) -> None:
    """Replace whole sections or single settings at the top of a run's config."""
    path = run / "config.yaml"
    config = yaml.safe_load(path.read_text(encoding="utf-8")) | sections
    path.write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")


def _result(folder: Path, stage: str, metrics: dict[str, Any]) -> None:
    account = {
        "source": f"data/quickstart/{stage}.jsonl",
        "sha256": "7c0d84fbf6468326" * 4,
        "read": 403,
        "kept": 400,
    }
    result = {
        "stage": stage,
        "fingerprint": "f44dbf5d017095f7",
        "metrics": metrics,
        "artifacts": {},
        "data": {stage: {**account, "used": 400, "rejected": 3, "reasons": {"empty completion": 3}}},
        "seconds": {"sft": 142.2, "reward": 431.0, "policy": 1043.9, "evaluate": 262.4}[stage],
        "peak_rss_mb": {"sft": 1480.0, "reward": 1620.0, "policy": 2113.0, "evaluate": 1533.0}[stage],
        "environment": ENVIRONMENT,
    }
    (folder / "result.json").write_text(json.dumps(result), encoding="utf-8")


def _fitted(name: str, rng: random.Random, start: float, end: float, *, accuracy: bool) -> list[dict[str, Any]]:
    def held(step: int) -> dict[str, float]:
        loss = end + 0.05 * start + (0.95 * start - end) * math.exp(-step / 14)
        right = {f"{name}/validation_accuracy": 0.86 - 0.36 * math.exp(-step / 12)} if accuracy else {}
        return {f"{name}/validation_loss": loss, **right}

    rows: list[dict[str, Any]] = [{"step": 0, **held(0)}]
    for step in range(1, 61):
        loss = end + (start - end) * math.exp(-step / 12) + rng.gauss(0, 0.04 * start)
        rows.append({"step": step, f"{name}/loss": loss, f"{name}/grad_norm": 1.0, f"{name}/learning_rate": 3e-4})
        if step % 20 == 0:
            rows.append({"step": step, f"{name}/epoch": step // 20, **held(step)})
    return rows


def _sft(folder: Path, rng: random.Random, *_: Any) -> dict[str, Any]:
    write_rows(folder / "metrics.jsonl", _fitted("sft", rng, 2.9, 1.6, accuracy=False))
    return {"loss_before": 2.9, "loss": 1.68, "best_epoch": 3, "steps": 60, "trainable_parameters": 4882432}


def _reward(folder: Path, rng: random.Random, *_: Any) -> dict[str, Any]:
    rows = [row for name in ("reward", "judge") for row in _fitted(name, rng, 0.72, 0.33, accuracy=True)]
    write_rows(folder / "metrics.jsonl", rows)
    figures: dict[str, Any] = {"steps": 60, "train_pairs": 180, "judge_train_pairs": 184, "test_pairs": 120}
    kinds = {
        "curt": 0.92,
        "evasive": 0.81,
        "generic": 0.77,
        "off_topic": 0.97,
        "rambling": 0.9,
        "wrong_content": 0.64,
    }
    for prefix, right in (("", 102), ("judge_", 99)):
        low, high = wilson(right, 120)
        figures |= {
            f"{prefix}accuracy": right / 120,
            f"{prefix}accuracy_low": low,
            f"{prefix}accuracy_high": high,
        }
        figures |= {f"{prefix}accuracy_by_failure.{kind}": share for kind, share in kinds.items()}
        figures |= {f"{prefix}{key}": value for key, value in confidence().items()}
    return figures | {"length_baseline": 0.592, "longer_wins": 0.408}


def confidence() -> dict[str, Any]:
    """What a reward model's card says of 120 pairs, 102 of them right."""
    claims = zip((0.55, 0.65, 0.75, 0.85, 0.95), (0.5, 0.68, 0.8, 0.95, 1.0), (20, 25, 25, 20, 30), strict=True)
    bands = []
    for confidence, share, n in claims:
        low, high = wilson(round(share * n), n)
        size = math.log(confidence / (1 - confidence))
        bands.append({"n": n, "smallest": size - 0.2, "largest": size + 0.2, "confidence": confidence})
        bands[-1] |= {"accuracy": share, "low": low, "high": high}
    return {
        **{"log_loss": 0.41, "ece": 0.047, "ece_by_chance": 0.052, "temperature": 1.12},
        **{"ece_after_temperature": 0.041, "log_loss_after_temperature": 0.405},
        **{"calibration": bands, "accuracy_by_margin": bands},
        "score_bins": [-2.0, -1.0, 0.0, 1.0, 2.0],
        "chosen_counts": [5, 20, 55, 40],
        "rejected_counts": [30, 50, 30, 10],
    }


def _policy_row(rng: random.Random, step: int, steps: int) -> dict[str, Any]:
    done = 1 - math.exp(-step / (steps / 2.5))
    times = {"generate": 19.0, "reward": 2.1, "reference": 1.8, "value": 2.4, "update": 9.0}
    times = {f"time/{name}": value * rng.uniform(0.9, 1.1) for name, value in times.items()}
    return {
        "step": step,
        "objective/score": 1.3 * done + rng.gauss(0, 0.12),
        "objective/judge": 1.1 * done - 0.5 * (step / steps) ** 3 + rng.gauss(0, 0.15),
        "objective/kl": 6.5 * done * step / steps + rng.gauss(0, 0.1) * (step > 1),
        "objective/kl_coef": 0.05,
        "objective/tokens": 34 - 2 * done + rng.gauss(0, 0.6),
        "objective/eos_rate": min(1.0, 0.9 + 0.09 * done + rng.gauss(0, 0.02)),
        "objective/equal_groups": 0.0,
        "policy/entropy": 1.6 - 0.4 * done + rng.gauss(0, 0.03),
        "policy/clip_fraction": 0.03 + abs(rng.gauss(0, 0.01)),
        "policy/approx_kl": 0.004 + abs(rng.gauss(0, 0.002)),
        "policy/ratio_max": 1.3 + abs(rng.gauss(0, 0.3)),
        "policy/grad_norm": 0.8 + rng.gauss(0, 0.1),
        "policy/learning_rate": 3e-4 * (1 - step / steps),
        "value/loss": 0.2 + 0.5 * math.exp(-step / 4),
        "value/explained_variance": 0.55 - 9 * math.exp(-step / 2),
        **times,
        "time/total": sum(times.values()) + 0.4,
    }


def _policy(folder: Path, rng: random.Random, _: int, steps: int, __: Any, texts: Texts) -> dict[str, Any]:
    rows, samples = [], []
    for step in range(1, steps + 1):
        rows.append(_policy_row(rng, step, steps))
        if step == 1 or step % 10 == 0:
            pairs = zip(texts["prompt"][step : step + 4] or texts["prompt"], texts["policy"], strict=False)
            some = {"score": 0.7, "kl": 3.1, "stopped": True}
            samples += [{"step": step, "prompt": prompt, "completion": text, **some} for prompt, text in pairs]
    write_rows(folder / "metrics.jsonl", rows)
    write_rows(folder / "samples.jsonl", samples)
    seconds = {"seconds_per_iteration": 34.7, "seconds_generate": 19.0, "seconds_reward": 2.1, "seconds_update": 9.0}
    figures = {"score": 1.25, "kl": 6.0, "tokens": 32.1, "eos_rate": 0.985, "algorithm": "ppo", "steps": steps}
    for who, last in (("reward", 1.3), ("judge", 0.6)):
        line = [[kl / 10, last * math.sqrt(kl / 60)] for kl in range(61)]
        curve = {"alpha": 0.9, "beta": 0.3, "peak_kl": 4.3, "peak_inside": who == "judge", "line": line, "caveats": []}
        figures |= {f"curve.{who}.{key}": value for key, value in curve.items()}
    return figures | seconds | {"trainable_parameters": 9765441}


def _evaluate(
    folder: Path, rng: random.Random, prompts: int, _: int, wins: tuple[float, float], texts: Texts
) -> dict[str, Any]:
    means = {"base": -1.6, "sft": 0.0, "policy": 1.2, "best_of_n": 0.9}
    rows = []
    for i in range(prompts):
        answers = {}
        for name, mean in means.items():
            text = texts[name][i % len(texts[name])]
            score = round(rng.gauss(mean, 0.8), 4)
            facts = {"tokens": len(text.split()) + 4, "stopped": i % 9 > 0 or name != "base"}
            answers[name] = {"text": text, **facts, "judge": score, "reward": score}
        prompt, category = texts["prompt"][i % len(texts["prompt"])], ("drinks", "cooking", "baking")[i % 3]
        rows.append({"prompt": prompt, "category": category, "answers": answers})
    write_rows(folder / "samples.jsonl", rows)
    figures: dict[str, Any] = {"judge": "judge", "judge_accuracy": 0.825, "prompts": prompts, "best_of": 4, "kl": 6.1}
    figures["detectable_rate"] = detectable(prompts)
    figures |= _win_rates(prompts, *wins)
    for name, mean in means.items():
        figures |= {f"judge_score.{name}": mean, f"reward_score.{name}": mean + 0.1}
        figures |= {f"mean_tokens.{name}": 32.1 if name == "policy" else 33.4, f"eos_rate.{name}": 0.98}
        figures |= {f"distinct_1.{name}": 0.31, f"distinct_2.{name}": 0.78, f"overused.{name}": []}
    return figures | {"overused.policy": [{"phrase": "and keep it", "share": 0.14, "reference_share": 0.03}]}


def _win_rates(prompts: int, policy_wins: float, sft_wins: float) -> dict[str, Any]:
    shares = {
        "policy_vs_sft": policy_wins,
        "sft_vs_base": sft_wins,
        "policy_vs_best_of_n": 0.56,
        "best_of_n_vs_sft": 0.74,
    }
    figures: dict[str, Any] = {}
    for pair, share in shares.items():
        won = round(share * prompts)
        low, high = wilson(won, prompts)
        parts = {"": won / prompts, "_low": low, "_high": high, "_wins": won, "_ties": 0, "_losses": prompts - won}
        controlled = {
            "_length_controlled": share - 0.02,
            "_length_controlled_low": low,
            "_length_controlled_high": high,
        }
        parts |= {"_n": prompts, "_p_holm": 0.0 if share > 0.6 else 0.09, "_length_overlap": 0.31, **controlled}
        figures |= {f"win_rate.{pair}{part}": value for part, value in parts.items()}
    return figures | _standing(policy_wins)


def _standing(policy_wins: float) -> dict[str, Any]:
    over = [policy_wins, policy_wins - 0.06, policy_wins + 0.06]
    rows = [
        {"system": "policy", "rating": 1190.0, "low": 1130.0, "high": 1255.0, "caveat": "", "over": {"sft": over}},
        {"system": "sft", "rating": 1000.0, "low": 1000.0, "high": 1000.0, "caveat": "", "over": {}},
    ]
    by = {"by": "category", "slice": "cooking", "rate": 0.8, "low": 0.69, "high": 0.88, "n": 67}
    apart = {"": 0.06, "_low": -0.03, "_high": 0.15, "_p": 0.19}
    difference = {f"difference.policy_minus_best_of_n_over_sft{part}": value for part, value in apart.items()}
    return {"standing": rows, "slices": [by], **difference}
