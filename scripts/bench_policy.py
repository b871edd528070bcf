"""Policy optimisation beside TRL on identical work: seconds by phase, tokens a second, peak memory.

    python scripts/bench_policy.py --json FILE --plot FILE.png
    python scripts/bench_policy.py --only ppo --device cuda

Every side is a process of its own with the same base, prompts, LoRA and batches; they take turns, one iteration each.
PPO is compared with TRL 1.10, the last that had it (fetched into .cache/trl-1.10); GRPO and RLOO with the
installed TRL.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from beside.turns import memory, print_table
from beside.workers import Worker, in_turns
from rich.table import Table

from pipeline.config import Config, load_config
from pipeline.progress import bar

CONFIG = "configs/quickstart.yaml"
TRL_PPO = "trl==1.10.0"
TRL_FOLDER = Path(".cache/trl-1.10")
PROMPT_TOKENS = (10, 32)
OURS = {
    "ours": [],
    "ours, plain path": ["model.fast=false"],
    "ours, shared trunk": ["policy.critic=shared_trunk"],
    "ours, upper half": ["lora.layers=upper"],
    "ours, upper half and shared trunk": ["lora.layers=upper", "policy.critic=shared_trunk"],
}
COMMON = [
    "lora.layers=all",
    "policy.epochs=2",
    "policy.minibatch_size=8",
    "policy.microbatch_size=8",
    "policy.learning_rate=1e-6",  # the models stay what they are, so that every iteration is the same work
    "policy.critic_learning_rate=1e-6",
    "policy.sampling.temperature=0.7",
    "policy.sampling.max_new_tokens=32",
    "logging.progress=false",
]
ONE_EACH = ["policy.prompts_per_step=32", "policy.group_size=1"]
GROUPS = ["policy.prompts_per_step=8", "policy.group_size=4"]


@dataclass(frozen=True)
class Case:
    """What is compared: settings that all sides share, and which sides there are."""

    overrides: list[str]
    sides: list[str]
    trl: str
    stop_at: str | None = None  # completions end with the token that ends this text; None = they have a fixed length


CASES = {
    "ppo": Case(["policy.algorithm=ppo", *ONE_EACH], [side for side in OURS if "plain" not in side], "trl 1.10"),
    "ppo, plain path": Case(["policy.algorithm=ppo", *ONE_EACH], ["ours", "ours, plain path"], "trl 1.10"),
    "ppo, natural stops": Case(
        ["policy.algorithm=ppo", *ONE_EACH, "policy.sampling.max_new_tokens=64"],
        ["ours", "ours, shared trunk"],
        "trl 1.10",
        stop_at=".",  # the first sentence, 5 to 64 tokens: this base seldom ends its answer earlier
    ),
    "grpo": Case(["policy.algorithm=grpo", *GROUPS], ["ours", "ours, upper half"], "trl"),
    "rloo": Case(["policy.algorithm=rloo", *GROUPS], ["ours", "ours, upper half"], "trl"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overrides", nargs="*", help="KEY=VALUE for all sides, as for `align run`")
    parser.add_argument("--only", nargs="+", choices=CASES, help="these comparisons alone")
    parser.add_argument("--sides", nargs="+", help="these sides alone")
    parser.add_argument("--iterations", type=int, default=5, help="measured ones, after one to warm up")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--json", type=Path, help="write every figure here")
    parser.add_argument("--plot", type=Path, help="draw the time by phase into this file")
    parser.add_argument("--worker", nargs=2, metavar=("CASE", "SIDE"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        work(*arguments.worker, arguments.overrides, arguments.device)
        return
    results: dict[str, dict[str, Any]] = {}
    for name in arguments.only or CASES:
        case = CASES[name]
        sides = [side for side in [*case.sides, case.trl] if not arguments.sides or side in arguments.sides]
        total = len(sides) * (arguments.iterations + 1)
        with bar(name, total, visible=True) as progress:
            workers = [worker(name, side, arguments.device, arguments.overrides) for side in sides]
            results[name] = in_turns(workers, arguments.iterations, progress)
        print_table(table(name, results[name], case.trl))
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    if arguments.plot:
        plot(results, arguments.plot)


# ---- the parent: one process a side, in turns ---------------------------------------------------------------


def worker(case: str, side: str, device: str, overrides: list[str]) -> Worker:
    """A process that works one iteration of a side whenever it is told to."""
    command = [sys.executable, __file__, "--device", device, "--worker", case, side, "--", *overrides]
    return Worker(side, command, {"PYTHONPATH": os.pathsep.join(paths())} if side == "trl 1.10" else {})


def paths() -> list[str]:
    """Where Python finds the last TRL with PPO, before the installed one."""
    if not (TRL_FOLDER / "trl").is_dir():
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(TRL_FOLDER), TRL_PPO]
        subprocess.run(command, check=True)
    return [str(TRL_FOLDER.resolve()), *filter(None, [os.environ.get("PYTHONPATH")])]


# ---- a side: loads, then works one iteration for each word --------------------------------------------------


def work(case_name: str, side: str, overrides: list[str], device: str) -> None:
    """Serve the parent until it says stop."""
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever libraries print goes elsewhere

    def beat(figures: dict[str, float]) -> None:
        """Report what was done, then wait for the word to go on."""
        print(json.dumps(figures), file=replies, flush=True)
        if sys.stdin.readline().strip() == "go":
            return
        print(json.dumps(memory(device)), file=replies, flush=True)
        os._exit(0)

    case = CASES[case_name]
    settings = [*COMMON, f"model.device={device}", *case.overrides, *OURS.get(side, []), *overrides]
    config = load_config(CONFIG, settings)
    queue, stop = work_of(config, case.stop_at)
    if side in OURS:
        ours(config, queue, stop, beat)
    else:
        from beside import trl_sides

        start: Callable[..., None] = trl_sides.ppo if side == "trl 1.10" else trl_sides.online
        with tempfile.TemporaryDirectory() as folder:
            start(config, queue, stop, beat, folder)


def work_of(config: Config, stop_at: str | None) -> tuple[list[list[int]], int | None]:
    """Token ids of the short prompts of the policy's data, and the token that ends a completion, if one is to."""
    from transformers import AutoTokenizer

    from pipeline.lm.chat import ChatFormat
    from pipeline.lm.sources import resolve
    from pipeline.stages.inputs import encode_prompts, read

    folder = resolve(config.model.name, sha256=config.model.sha256, cache_dir=config.model.cache_dir)
    chat = ChatFormat(AutoTokenizer.from_pretrained(folder), template=config.model.chat_template)
    encoded = [ids for _, ids in encode_prompts(chat, read(config, config.policy.data, "prompts"))]
    low, high = PROMPT_TOKENS
    stop = None if stop_at is None else chat.tokenizer(stop_at, add_special_tokens=False)["input_ids"][-1]
    return [ids for ids in encoded if low <= len(ids) <= high], stop


def ours(config: Config, queue: list[list[int]], stop: int | None, beat: Callable[[dict[str, float]], None]) -> None:
    import torch

    from pipeline.data.schema import Prompt
    from pipeline.stages.inputs import load_backbone
    from pipeline.stages.learner import Learner
    from pipeline.stages.policy import iterate
    from pipeline.stages.score import Score
    from pipeline.stages.terms import build_terms

    cfg = config.policy
    torch.manual_seed(config.seed)
    backbone = load_backbone(config)
    backbone.chat.stop_ids = () if stop is None else (stop,)
    backbone.roles.add("sft")
    for name in ("reward", "policy", *(["critic"] if cfg.needs_critic and cfg.critic == "adapter" else [])):
        backbone.roles.clone("sft", name)
    backbone.roles.add_head("reward")
    learner, score = Learner(backbone, cfg, config.seed), Score(backbone, build_terms(config, backbone), cfg)
    beat({})
    for step in range(1, 10**6):
        at = (step - 1) * cfg.prompts_per_step
        prompts = (queue[(at + index) % len(queue)] for index in range(cfg.prompts_per_step))
        batch = [(Prompt((), "", {}), prompt) for prompt in prompts]
        rollout, _, _, row = iterate(learner, score, batch, step)
        times = {name.removeprefix("time/"): value for name, value in row.items() if name.startswith("time/")}
        times["value"] = times.pop("credit")
        beat(times | {"tokens": float(rollout.lengths.sum())})


# ---- what comes out -----------------------------------------------------------------------------------------

PHASES = ("generate", "reference", "value", "reward", "update", "total")


def table(name: str, results: dict[str, Any], trl: str) -> Table:
    """Medians, and how each side compares with TRL."""
    shown = Table(
        "", *(f"{phase}, s" for phase in PHASES), "spread", "tokens/s", "faster", "peak, MB", "of TRL's", title=name
    )
    base = results.get(trl)
    for side, result in results.items():
        middle = result["median"]
        totals = [row["total"] for row in result["iterations"]]
        peak = result["memory"]["peak_mb"]
        speed = middle["tokens"] / middle["total"]
        faster = share = ""
        if base is not None:
            faster = f"{speed / (base['median']['tokens'] / base['median']['total']):.2f}×"
            share = f"{peak / base['memory']['peak_mb']:.2f}×"
        shown.add_row(
            side,
            *(f"{middle.get(phase, 0.0):.2f}" for phase in PHASES),
            f"{min(totals):.2f}–{max(totals):.2f}",
            f"{speed:.0f}",
            faster,
            f"{peak:.0f}",
            share,
        )
    return shown


def plot(results: dict[str, dict[str, Any]], file: Path) -> None:
    """One bar a side, cut into phases."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    rows = [(case, side, result["median"]) for case, sides in results.items() for side, result in sides.items()]
    figure, axes = pyplot.subplots(figsize=(9, 0.42 * len(rows) + 1.2), layout="constrained")
    colours = ["#4477aa", "#ccbb44", "#aa3377", "#228833", "#66ccee"]  # Tol's bright scheme
    at = list(range(len(rows)))[::-1]
    left = [0.0] * len(rows)
    for phase, colour in zip(PHASES[:-1], colours, strict=True):
        width = [row.get(phase, 0.0) for _, _, row in rows]
        axes.barh(at, width, left=left, color=colour, label=phase, height=0.7)
        left = [a + b for a, b in zip(left, width, strict=True)]
    axes.set_yticks(at, [f"{case}: {side}" for case, side, _ in rows])
    axes.set_xlabel("seconds an iteration, median")
    axes.legend(frameon=False, ncols=5, loc="lower center", bbox_to_anchor=(0.4, 1.0))
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(file, dpi=150)


if __name__ == "__main__":
    main()
