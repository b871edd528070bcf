"""The memory planner beside what was measured: peak of every stage on rows that fill the limits.

    python scripts/bench_plan.py
    python scripts/bench_plan.py --config configs/quickstart.yaml --json FILE lora.layers=all

Writes rows of random numbers that are longer than every limit, runs each stage once with a few of them and the longest
batch proved first, and holds `align plan` against the peaks. Every stage is a process of its own.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, get_args

from rich.console import Console
from rich.table import Table

from pipeline.config import GateName, load_config
from pipeline.progress import bar
from pipeline.rundir import STAGES

VARIANTS: dict[str, list[str]] = {
    "as it is": [],
    "all layers": ["lora.layers=all"],
    "all layers, half the microbatch": [
        *("lora.layers=all", "sft.microbatch_size=4", "reward.microbatch_size=4", "policy.microbatch_size=4")
    ],
    "twice the length": [
        *("sft.max_length=320", "reward.max_length=320", "policy.sampling.max_new_tokens=128"),
    ],
    "RLOO": ["policy.algorithm=rloo"],
}
ROWS = 40


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overrides", nargs="*", help="KEY=VALUE for all variants, as for `align run`")
    parser.add_argument("--config", type=Path, default=Path("configs/quickstart.yaml"))
    parser.add_argument("--only", nargs="+", choices=VARIANTS, help="these variants alone")
    parser.add_argument("--json", type=Path, help="write every figure here")
    arguments = parser.parse_args()
    found: dict[str, dict[str, dict[str, float]]] = {}
    names = arguments.only or list(VARIANTS)
    with bar("stages", len(names) * len(STAGES), visible=True) as progress:
        for name in names:
            with tempfile.TemporaryDirectory() as folder:
                settings = [*VARIANTS[name], *arguments.overrides, *small(Path(folder), arguments.config)]
                predicted = align("plan", arguments.config, settings, "--json", "--data")
                measured = {}
                for stage in STAGES:
                    align(stage, arguments.config, settings)
                    result = json.loads((Path(folder) / "run" / stage / "result.json").read_text(encoding="utf-8"))
                    measured[stage] = result["peak_gpu_mb"] or result["peak_rss_mb"]
                    progress.advance()
            found[name] = {stage: {"predicted": predicted[stage], "measured": measured[stage]} for stage in STAGES}
    show(found)
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


def small(folder: Path, path: Path) -> list[str]:
    """Long rows, and settings under which every stage is over soon."""
    rng = random.Random(0)
    config = load_config(path, ())
    text = lambda count: " ".join(str(rng.randrange(100)) for _ in range(count))  # noqa: E731
    prompt = min(40, config.policy.max_prompt_length // 2)
    rows: dict[str, list[dict[str, str]]] = {
        "sft": [{"prompt": text(prompt), "completion": text(400)} for _ in range(ROWS)],
        "reward": [{"prompt": text(prompt), "chosen": text(400), "rejected": text(400)} for _ in range(ROWS)],
        "policy": [{"prompt": text(prompt)} for _ in range(ROWS)],
        "evaluate": [{"prompt": text(prompt)} for _ in range(config.evaluate.batch_size)],
    }
    settings = [f"run_dir={folder / 'run'}", "logging.progress=false", f"gates.skip=[{', '.join(get_args(GateName))}]"]
    for section, content in rows.items():
        file = folder / f"{section}.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in content), encoding="utf-8")
        settings.append(f"{section}.data={{source: {file}}}")
    settings += ["sft.epochs=1", "reward.epochs=1", "policy.steps=1", "policy.missing_eos=penalty"]
    return [*settings, "gates.prove_memory=always", "evaluate.best_of=1", "reward.calibration_samples=48"]


def align(command: str, config: Path, settings: list[str], *options: str) -> Any:
    """Run one command; what it printed, when that is JSON."""
    line = [sys.executable, "-m", "pipeline.cli", command, str(config), *settings, *options]
    done = subprocess.run(line, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1]) if options else None


def show(found: dict[str, dict[str, dict[str, float]]]) -> None:
    """Predicted, measured and their ratio."""
    table = Table("variant", "stage", "predicted, MB", "measured, MB", "predicted ÷ measured", title="Peak memory")
    for name, stages in found.items():
        for stage, both in stages.items():
            ratio = both["predicted"] / both["measured"]
            table.add_row(name, stage, f"{both['predicted']:,.0f}", f"{both['measured']:,.0f}", f"{ratio:.2f}")
            name = ""
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
