"""Several runs in tables: one row a run, and the settings in which they differ."""

import json
from collections.abc import Sequence
from typing import Any

from pipeline.gates import findings
from pipeline.report.comparability import Entry
from pipeline.report.headline import compared
from pipeline.report.load import Run
from pipeline.report.tables import Table
from pipeline.report.wording import DASH, duration, interval, local_paths_shortened, megabytes, number, percent

# As `align summary` calls them.
SHARES = ("policy_vs_sft", "sft_vs_base")
FIGURES = (
    "evaluate.kl",
    "evaluate.mean_tokens.policy",
    "evaluate.eos_rate.policy",
    "reward.accuracy",
    "reward.judge_accuracy",
)
HEADS = (
    *("Run", "Model", "Algorithm", "Seed", "Policy beats SFT", "SFT beats base", "KL", "Tokens", "Ends by itself"),
    *("Reward accuracy", "Judge accuracy", "Learns", "Time", "Peak memory", "Gates passed over"),
)


def figures(entry: Entry) -> dict[str, Any]:
    """What is compared of a run, as plain values under `align summary`'s keys; what it hasn't got is left out."""
    run = entry.run
    results = [stage.result for stage in run.finished if stage.result]
    flat = {f"{stage.name}.{key}": value for stage in run.finished for key, value in stage.metrics.items()}
    rates = [f"evaluate.win_rate.{pair}{end}" for pair in SHARES for end in ("", "_low", "_high", "_n")]
    return {
        "run": entry.name,
        "model": local_paths_shortened((run.config.get("model") or {}).get("name")),
        "algorithm": (run.config.get("policy") or {}).get("algorithm"),
        "seed": run.config.get("seed"),
        **{key: flat[key] for key in (*rates, *FIGURES) if key in flat},
        "total_seconds": round(sum(result.seconds for result in results), 2),
        "trainable_parameters": max(
            (stage.metrics.get("trainable_parameters") or 0 for stage in run.finished), default=0
        ),
        "peak_rss_mb": max(result.peak_rss_mb for result in results),
        "gates_passed_over": passed_over(run),
        "unfinished": [stage.name for stage in run.unfinished],
    }


def passed_over(run: Run) -> list[str]:
    """Gates that were closed and are built upon all the same."""
    return [one.gate.name for stage in run.finished for one in findings(stage.name, stage.metrics) if not one.held]


def side_by_side(runs: Sequence[Entry]) -> Table:
    """One row a run."""
    return Table(
        "A dash: the run hasn't got that far, or hasn't measured it.", list(HEADS), [_row(run) for run in runs]
    )


def _row(entry: Entry) -> list[str]:
    found = figures(entry)
    plain = [str(found[key]) if found[key] is not None else DASH for key in ("model", "algorithm", "seed")]
    kl, tokens, ends, reward, judge = (found.get(key) for key in FIGURES)
    return [
        entry.label,
        *plain,
        *(_rate(entry.run, *pair.split("_vs_")) for pair in SHARES),
        *(number(kl, 1), number(tokens, 1), percent(ends), percent(reward, 1), percent(judge, 1)),
        *(f"{found['trainable_parameters']:,}", duration(found["total_seconds"]), megabytes(found["peak_rss_mb"])),
        ", ".join(found["gates_passed_over"]) or "none",
    ]


def _rate(run: Run, a: str, b: str) -> str:
    pair = compared(run, a, b)
    return interval(pair.rate, pair.low, pair.high) if pair else DASH


def settings(runs: Sequence[Entry]) -> Table | None:
    """The settings in which the runs differ, None where there is none. The run folder doesn't count."""
    flat = [_flat(entry.run.config) for entry in runs]
    keys = list(dict.fromkeys(key for one in flat for key in one if key != "run_dir"))
    told = {key: [_told(one, key) for one in flat] for key in keys}
    rows = [[key, *values] for key, values in told.items() if len(set(values)) > 1]
    caption = "Settings that aren't the same in all runs."
    return Table(caption, ["Setting", *(entry.label for entry in runs)], rows) if rows else None


def _flat(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested sections as dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) and value else {f"{prefix}{key}": value}
    return flat


def _told(flat: dict[str, Any], key: str) -> str:
    if key not in flat:
        return DASH
    value = local_paths_shortened(flat[key])
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
