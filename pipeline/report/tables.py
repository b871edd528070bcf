"""The tables and cards of the report, as rows of finished strings."""

import re
from dataclasses import dataclass
from typing import Any

from pipeline.gates import findings
from pipeline.report.headline import compared
from pipeline.report.load import Run
from pipeline.report.wording import (
    DASH,
    STAGE_NAMES,
    count,
    duration,
    interval_apart,
    local_paths_shortened,
    megabytes,
    number,
    percent,
    system_name,
)

SYSTEMS = ("base", "sft", "policy", "best_of_n", "dpo")
PHRASES = 12  # over-used phrases listed


@dataclass(frozen=True)
class Card:
    """One key figure."""

    label: str
    value: str
    note: str = ""


@dataclass(frozen=True)
class Table:
    """A caption, column heads, and rows of cells; the first cell of a row is its head."""

    caption: str
    heads: list[str]
    rows: list[list[str]]


def cards(run: Run) -> list[Card]:
    """The key figures there are, in order of interest."""
    found = [_rate_card(run, "policy", "sft"), _rate_card(run, "sft", "base")]
    found += [_accuracy_card(run, "", "Reward accuracy"), _accuracy_card(run, "judge_", "Judge accuracy")]
    metrics, policy = run["evaluate"].metrics, run["policy"].metrics
    if (kl := metrics.get("kl", policy.get("kl"))) is not None:
        found.append(Card("KL from SFT", number(kl, 1), "nats per answer"))
    if (rate := metrics.get("eos_rate.policy", policy.get("eos_rate"))) is not None:
        found.append(Card("Ends by itself", percent(rate), "of the policy's answers"))
    if (tokens := metrics.get("mean_tokens.policy", policy.get("tokens"))) is not None:
        sft = metrics.get("mean_tokens.sft")
        note = f"policy; SFT {number(sft, 1)}" if sft is not None else "policy"
        found.append(Card("Tokens per answer", number(tokens, 1), note))
    results = [stage.result for stage in run.finished if stage.result]
    names = "all stages" if not run.unfinished else f"{len(results)} of {len(run.stages)} stages"
    found.append(Card("Time", duration(sum(result.seconds for result in results)), names))
    found.append(Card("Peak memory", megabytes(max(result.peak_rss_mb for result in results)), "resident"))
    if on_gpu := [result.peak_gpu_mb for result in results if result.peak_gpu_mb is not None]:
        found.append(Card("Peak GPU memory", megabytes(max(on_gpu)), "allocated"))
    return [card for card in found if card]


def _rate_card(run: Run, a: str, b: str) -> Card | None:
    pair = compared(run, a, b)
    if pair is None:
        return None
    value, bounds = interval_apart(pair.rate, pair.low, pair.high)
    name = system_name(a)
    return Card(f"{name[0].upper()}{name[1:]} beats {system_name(b)}", value, bounds)


def _accuracy_card(run: Run, prefix: str, label: str) -> Card | None:
    metrics = run["reward"].metrics
    if f"{prefix}accuracy" not in metrics:
        return None
    note = _bounds(metrics, prefix)
    if not prefix and "length_baseline" in metrics:
        note += f"; by length alone {percent(metrics['length_baseline'], 1)}"
    return Card(label, percent(metrics[f"{prefix}accuracy"], 1), note)


def _bounds(metrics: dict[str, Any], prefix: str) -> str:
    """The interval of an accuracy, "" when there is none."""
    low, high = (metrics.get(f"{prefix}accuracy_{end}") for end in ("low", "high"))
    return "" if low is None or high is None else f"[{number(100 * low, 1)}, {number(100 * high, 1)}]"


def answers(run: Run) -> Table | None:
    """What each system's answers are like."""
    metrics = run["evaluate"].metrics
    there = [key.removeprefix("mean_tokens.") for key in metrics if key.startswith("mean_tokens.")]
    systems = [name for name in SYSTEMS if name in there] + [name for name in there if name not in SYSTEMS]
    if not systems:
        return None
    heads = [
        "System",
        "Tokens",
        "Ends by itself",
        "Distinct-1",
        "Distinct-2",
        "Judge's score",
        "Reward score",
    ]
    rows = []
    for name in systems:
        tokens, eos, one, two, judge, reward = (
            metrics.get(f"{key}.{name}")
            for key in ("mean_tokens", "eos_rate", "distinct_1", "distinct_2", "judge_score", "reward_score")
        )
        shares = [percent(eos), number(one), number(two)]
        rows.append(
            [
                system_name(name, metrics.get("best_of")),
                number(tokens, 1),
                *shares,
                number(judge),
                number(reward),
            ]
        )
    caption = (
        "Means over the evaluation's answers. Scores are in standard deviations of SFT's scores; distinct-n is the "
        "share of n-grams that differ."
    )
    return Table(caption, heads, rows)


def overused(run: Run) -> Table | None:
    """Phrases the policy uses more than twice as often as the demonstrations. No rows: there are none."""
    phrases = run["evaluate"].metrics.get("overused.policy")
    if phrases is None:
        return None
    rows = [[str(row["phrase"]), percent(row["share"]), percent(row["reference_share"])] for row in phrases[:PHRASES]]
    caption = "Phrases in the policy's answers at least twice as often as in the demonstrations."
    if len(phrases) > PHRASES:
        caption += f" The first {PHRASES} of {len(phrases)}."
    return Table(caption, ["Phrase", "Policy's answers", "Demonstrations"], rows)


def reward(run: Run) -> Table | None:
    """Accuracy of reward model and judge, beside what length alone achieves."""
    metrics = run["reward"].metrics
    if "accuracy" not in metrics:
        return None
    rows = []
    members = [key.removesuffix("_accuracy") for key in metrics if re.fullmatch(r"judge_\d+_accuracy", key)]
    names = [("reward model", ""), ("judge", "judge_"), *((name.replace("_", " "), f"{name}_") for name in members)]
    for label, prefix in names:
        if f"{prefix}accuracy" in metrics:
            bounds = _bounds(metrics, prefix) or DASH
            pairs = count(metrics.get(f"{prefix}train_pairs"))
            rows.append([label, percent(metrics[f"{prefix}accuracy"], 1), bounds, pairs])
    if "length_baseline" in metrics:
        which = "longer" if metrics.get("longer_wins", 1.0) >= 0.5 else "shorter"
        rows.append([f"“the {which} wins”", percent(metrics["length_baseline"], 1), DASH, DASH])
    tested = metrics.get("test_pairs")
    where = f"{count(tested)} test pairs" if tested else "validation pairs"
    return Table(f"Accuracy on {where}.", ["Model", "Accuracy", "95 % interval", "Training pairs"], rows)


def held_gates(run: Run) -> Table | None:
    """What had to hold before the next stage built on a result, and whether it did."""
    rows = []
    for stage in run.finished:
        for finding in findings(stage.name, stage.metrics):
            passed_over = "passed over (gates.skip)" if finding.gate.name in run.skipped_gates else "closed"
            rows.append(
                [
                    finding.gate.name,
                    finding.found,
                    finding.gate.usual,
                    "open" if finding.held else passed_over,
                ]
            )
    caption = "Gates: what must hold before the next stage builds on a result."
    return Table(caption, ["Gate", "Found", "Usual", "It is"], rows) if rows else None


def cost(run: Run) -> Table:
    """Seconds, peak memory and trainable parameters of each finished stage."""
    stages = [(stage, stage.result) for stage in run.finished if stage.result]
    on_gpu = any(result.peak_gpu_mb is not None for _, result in stages)
    rows = []
    for stage, result in stages:
        memory = [megabytes(result.peak_rss_mb)] + ([megabytes(result.peak_gpu_mb)] if on_gpu else [])
        learned = [count(stage.metrics.get(name)) for name in ("steps", "trainable_parameters")]
        rows.append([STAGE_NAMES[stage.name], duration(result.seconds), *memory, *learned])
    heads = ["Stage", "Time", "Peak memory", *(["On the GPU"] if on_gpu else []), "Steps", "Trainable parameters"]
    return Table("Cost of each stage. Memory is the process's resident peak.", heads, rows)


def phases(run: Run) -> Table | None:
    """Median seconds of one step of policy optimisation, by phase."""
    metrics = run["policy"].metrics
    total = metrics.get("seconds_per_iteration")
    if not total:
        return None
    names = [key for key in metrics if key.startswith("seconds_") and key != "seconds_per_iteration"]
    rows = [[name.removeprefix("seconds_"), duration(metrics[name]), percent(metrics[name] / total)] for name in names]
    rows.append(["one step", duration(total), ""])
    return Table("Median time of a step of policy optimisation.", ["Phase", "Time", "Share"], rows)


def data(run: Run) -> Table | None:
    """Where the rows came from, and how many were left out and why."""
    rows = []
    for stage in run.finished:
        for source in stage.result.data.values() if stage.result else ():
            reasons = [f"{reason}: {count(n)}" for reason, n in (source.get("reasons") or {}).items()]
            numbers = [count(source.get(key)) for key in ("read", "kept", "used")]
            rejected = "; ".join(reasons) or count(source.get("rejected"))
            place = str(local_paths_shortened(source.get("source", DASH)))
            rows.append([STAGE_NAMES[stage.name], place, *numbers, rejected, str(source.get("sha256") or DASH)[:12]])
    heads = ["Stage", "Source", "Read", "Kept", "Used", "Rejected", "SHA-256"]
    return Table("Data, with the first twelve digits of each file's hash.", heads, rows) if rows else None


def environment(run: Run) -> Table:
    """Versions and machine; several columns only where stages ran under different ones."""
    groups: dict[tuple[tuple[str, Any], ...], list[str]] = {}
    for stage in run.finished:
        assert stage.result
        groups.setdefault(tuple(stage.result.environment.items()), []).append(STAGE_NAMES[stage.name])
    keys = list(dict.fromkeys(key for group in groups for key, _ in group))
    heads = ["", "every stage"] if len(groups) == 1 else ["", *(", ".join(names) for names in groups.values())]
    rows = [[key.replace("_", " "), *(str(dict(group).get(key, DASH)) for group in groups)] for key in keys]
    return Table("Machine and versions.", heads, rows)
