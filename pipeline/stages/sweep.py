"""Several runs of one config that differ in some settings; what doesn't depend on those is done once.

ROOT/
  <key>=<value>,…/       one run folder a combination
  sweep.json             settings and figures of every run, written after each
  frontier.html, .png    the report's picture of all of them
"""

import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pipeline import processes
from pipeline.atomic import write_atomically
from pipeline.config import Grid, Point, dump_config
from pipeline.evaluation.overoptimisation import figures, fit, measured_peak
from pipeline.progress import say
from pipeline.rundir import ALL_STAGES, RunDir, RunError, read_jsonl, summary
from pipeline.stages.chain import needs_of, run_stages, stage_fingerprint, stages_of

# What sweep.json tells of a run, of all that its summary holds.
TOLD = (
    *("policy.steps", "policy.score", "policy.kl", "policy.tokens", "policy.stopped_by", "policy.returned_to"),
    *("evaluate.kl", "evaluate.judge", "evaluate.judge_score.policy", "evaluate.reward_score.policy"),
    *("evaluate.judge_score.sft", "evaluate.reward_score.sft", "evaluate.mean_tokens.policy"),
    *(f"evaluate.win_rate.policy_vs_sft{part}" for part in ("", "_low", "_high")),
    "total_seconds",
)


@dataclass(frozen=True)
class Run:
    """One combination, as far as it came: `changed` by this call, or `failed` with a sentence."""

    point: Point
    path: Path
    changed: bool = False
    failed: str | None = None
    figures: Mapping[str, Any] = field(default_factory=dict)


def run_sweep(grid: Grid) -> Iterator[Run]:
    """Do every combination in turn, and write sweep.json after each.

    What is finished and unchanged is skipped, what was interrupted goes on. A run that can't go on is named, and leaves
    the others alone.

    Raises:
        RunError: several processes were launched.
    """
    if processes.launched() > 1:
        raise RunError("a sweep works in one process; give each of its runs several with scripts/run.py")
    done: list[Run] = []
    for number, point in enumerate(grid.points, start=1):
        visible = point.config.logging.progress
        say(f"run {number} of {len(grid.points)}: {point.name}", visible=visible)
        run = _one(grid.root, point)
        if run.failed:
            say(f"{point.name} can't go on: {run.failed}")
        done.append(run)
        text = json.dumps(account(grid, done), ensure_ascii=False, indent=2, default=str)
        write_atomically(grid.root / "sweep.json", text + "\n")
        yield run


def _one(root: Path, point: Point) -> Run:
    path = root / point.name
    before = _results(path)
    failed = None
    try:
        RunDir(path).create(dump_config(point.config))
        for stage in stages_of(point.config):
            if not share(root, point, stage):
                run_stages(point.config, [stage])
    except (RunError, FloatingPointError) as error:
        failed = str(error)
    found = summary(RunDir(path))
    told = {key: found[key] for key in TOLD if key in found}
    return Run(point, path, _results(path) != before, failed, told)


def share(root: Path, point: Point, stage: str) -> bool:
    """Take a finished stage over from another run in `root`, or from the run that `root` itself is, if it was made by
    the same settings, data and predecessors; whether there was one.

    Raises:
        RunError: the folder can't be written.
    """
    run_dir = RunDir(root / point.name)
    if any(run_dir.result(need) is None for need in needs_of(point.config, stage)):
        return False
    mark = stage_fingerprint(point.config, run_dir, stage)
    if _fingerprint(run_dir.path / stage) == mark:
        return False
    for other in (root, *sorted(path for path in root.glob("*/") if path != run_dir.path)):
        if _fingerprint(other / stage) == mark:
            try:
                _take_over(other / stage, run_dir, stage)
            except OSError as error:
                raise RunError(f"{run_dir.path / stage} can't be written: {error.strerror}") from None
            say(f"{stage}: the same as in {other.name}; taken from there", visible=point.config.logging.progress)
            return True
    return False


def _take_over(source: Path, run_dir: RunDir, stage: str) -> None:
    """A copy of a finished stage's folder, there whole or not at all; results that were built on another one go."""
    hidden, place = run_dir.path / f".{stage}", run_dir.path / stage
    shutil.rmtree(hidden, ignore_errors=True)
    shutil.copytree(source, hidden, copy_function=_copy)
    run_dir.withdraw(stage)
    shutil.rmtree(place, ignore_errors=True)
    hidden.rename(place)


def _copy(source: str, target: str) -> None:
    """One file, flushed to disk: a result must not be there before what it speaks of."""
    shutil.copyfile(source, target)
    with open(target, "rb") as file:
        os.fsync(file.fileno())


def _fingerprint(folder: Path) -> str | None:
    """Of a finished stage; None while it isn't done, or where its result can't be read."""
    try:
        return json.loads((folder / "result.json").read_text(encoding="utf-8"))["fingerprint"]  # type: ignore[no-any-return]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _results(path: Path) -> dict[str, bytes]:
    """Every finished stage's result, as it stands."""
    files = {stage: path / stage / "result.json" for stage in ALL_STAGES}
    return {stage: file.read_bytes() for stage, file in files.items() if file.is_file()}


def account(grid: Grid, runs: Sequence[Run]) -> dict[str, Any]:
    """What sweep.json holds: what varies, every run, the best of them, and the curve that all their steps lie on."""
    seen: dict[bytes, str] = {}
    rows = []
    for run in runs:
        results = _results(run.path)
        shared = {stage: seen[result] for stage, result in results.items() if result in seen}
        seen |= {result: run.point.name for result in results.values() if result not in seen}
        rows.append(
            {
                "run": run.point.name,
                "settings": dict(run.point.settings),
                "shared": shared,
                "failed": run.failed,
                "figures": dict(run.figures),
            }
        )
    return {"swept": {key: list(values) for key, values in grid.axes.items()}, "runs": rows, **frontier(runs)}


def frontier(runs: Sequence[Run]) -> dict[str, Any]:
    """The run whose policy the held-out judge likes best, and RL's curve through every step of every run.

    Without a held-out judge it is the reward model's own score, which over-optimisation flatters.
    """
    steps = [row for run in runs for row in read_jsonl(run.path / "policy" / "metrics.jsonl")]
    held_out = any("objective/judge" in row for row in steps)
    key, score = ("objective/judge", "judge") if held_out else ("objective/score", "reward")
    rows = [row for row in steps if key in row]
    found: dict[str, Any] = {"told_by": score}
    if rows:
        kl, scores = (np.array([row[name] for row in rows]) for name in ("objective/kl", key))
        found["curve"] = figures(fit(kl, scores, "rl"))
    ends = [run for run in runs if f"evaluate.{score}_score.policy" in run.figures]
    if ends:
        place, peak = measured_peak(
            [run.figures["evaluate.kl"] for run in ends],
            [run.figures[f"evaluate.{score}_score.policy"] for run in ends],
        )
        found["best"] = {"run": ends[place].point.name, "kl": peak.kl, "score": peak.score, "inside": peak.inside}
    return found
