"""The batch that broke a policy step: kept with the weights it broke on, and looked at again by `align replay`."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from safetensors.torch import load_file, save_file
from torch import Tensor

from pipeline import processes
from pipeline.lm.policy import completion_texts, rollout_logprobs
from pipeline.lm.reward import RewardModel
from pipeline.rl.rollout import Rollout
from pipeline.rundir import RunError, StageDir
from pipeline.stages.inputs import load_backbone, open_run
from pipeline.stages.learner import Learner

FOLDER, BATCH, STORY = "offending", "rollout.safetensors", "what.json"
CONTEXT = "context."
SHOWN = 60  # characters of a completion in the table


@contextmanager
def offending_batch_kept(out: StageDir, learner: Learner, step: int) -> Iterator[None]:
    """While the block runs, what raises FloatingPointError leaves its batch and weights behind.

    Raises:
        FloatingPointError: the same, naming the step and the way to look at it.
    """
    try:
        yield
    except FloatingPointError as error:
        if learner.at_hand is None:
            raise
        if processes.main():
            keep(out.path / FOLDER, learner, step, str(error))
        raise FloatingPointError(
            f"step {step}: {error}\nThe batch and the weights are kept: `align replay {out.path.parent}` shows them"
        ) from None


def keep(folder: Path, learner: Learner, step: int, error: str) -> None:
    """Write the rollout at hand and the adapters that learn."""
    rollout = learner.at_hand
    assert rollout is not None
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    present = {field.name: getattr(rollout, field.name) for field in fields(rollout)}
    tensors = {name: value for name, value in present.items() if isinstance(value, Tensor)}
    tensors |= {CONTEXT + name: value for name, value in rollout.context.items()}
    save_file({name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}, folder / BATCH)
    backbone = learner.policy.backbone
    for name in ("policy", "critic"):
        if name in backbone.roles:
            backbone.roles.save(name, folder / name)
    story = {"step": step, "error": error}
    (folder / STORY).write_text(json.dumps(story, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


def load_batch(folder: Path) -> Rollout:
    """The rollout that `keep` wrote."""
    tensors = load_file(folder / BATCH)
    context = {name.removeprefix(CONTEXT): value for name, value in tensors.items() if name.startswith(CONTEXT)}
    return Rollout(context=context, **{name: value for name, value in tensors.items() if not name.startswith(CONTEXT)})


def replay(run_path: Path) -> None:
    """Run the kept batch through the kept weights again, and print where a figure isn't finite.

    Raises:
        RunError: no run there, or no batch was kept.
    """
    config, run_dir = open_run(run_path)
    folder = run_dir.path / "policy" / FOLDER
    if not (folder / STORY).is_file():
        raise RunError(f"{run_path} keeps no offending batch: its policy stage met no NaN or infinite figure")
    story = json.loads((folder / STORY).read_text(encoding="utf-8"))
    backbone = load_backbone(config)
    backbone.roles.load("policy", folder / "policy")
    if config.reward is not None:
        backbone.restore("reward", run_dir.artifact("reward", "reward"))
    names = ["policy"]
    if (folder / "critic").is_dir():
        backbone.roles.load("critic", folder / "critic")
        names.append("critic")
    rollout = load_batch(folder).to(backbone.device)
    size, temperature = 2 * config.policy.microbatch_size, config.policy.sampling.temperature
    now = rollout_logprobs(backbone, "policy", rollout, temperature=temperature, batch_size=size)
    scores = None if config.reward is None else RewardModel(backbone, "reward").score(rollout, batch_size=size)
    console = Console()
    console.print(f"step {story['step']}: {story['error']}", markup=False, highlight=False)
    console.print(table(rollout, completion_texts(backbone, rollout), now, scores))
    for name in names:
        bad = sum(int((~torch.isfinite(p)).sum()) for p in backbone.roles.parameters_of(name))
        total = sum(p.numel() for p in backbone.roles.parameters_of(name))
        console.print(f"{name}: {bad:,} of {total:,} weights are not finite", highlight=False)


def table(rollout: Rollout, texts: list[str], now: Tensor, scores: Tensor | None) -> Table:
    """One row a completion, those with a figure that isn't finite marked."""
    drawn = Table(title="The batch, under the weights of that moment (sums over a completion, nats)")
    for head in ("row", "tokens", "score", "log π sampled", "log π now", "return", "value", "", "completion"):
        drawn.add_column(head, justify="left" if head in ("", "completion") else "right", overflow="fold")
    mask = rollout.mask
    for row in range(len(rollout)):
        values: dict[str, Tensor | None] = {
            "score": None if scores is None else scores[row],
            "sampled": rollout.logprobs[row][mask[row]].sum(),
            "now": now[row][mask[row]].sum(),
            "return": rollout.rewards[row][mask[row]].sum(),
            "value": None if rollout.values is None else rollout.values[row][mask[row]].mean(),
        }
        bad = [name for name, value in values.items() if value is not None and not torch.isfinite(value)]
        shown = ["–" if value is None else f"{value.item():.3g}" for value in values.values()]
        text: Any = texts[row].replace("\n", " ")
        drawn.add_row(
            str(row),
            str(int(rollout.lengths[row])),
            *shown,
            f"not finite: {', '.join(bad)}" if bad else "",
            text[:SHOWN] + ("…" if len(text) > SHOWN else ""),
            style="red" if bad else None,
        )
    return drawn
