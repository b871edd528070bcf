"""A finished run without the training: random adapters that do something, and figures as stages leave them."""

from pathlib import Path
from typing import Any

from pipeline.config import dump_config, parse_config
from pipeline.rundir import RunDir
from tests.lm.builders import LORA, noisy, tiny

RATES: dict[str, Any] = {
    f"win_rate.policy_vs_sft{end}": value
    for end, value in {
        "": 0.75,
        "_low": 0.6,
        "_high": 0.85,
        "_wins": 30,
        "_ties": 0,
        "_losses": 10,
        "_n": 40,
    }.items()
}


def finished(folder: Path, cache: Path, *, std: float = 0.2, evaluated: bool = True, **model: Any) -> RunDir:
    """A run on the tiny model with an adapter each for SFT and policy."""
    data = folder / "prompts.jsonl"
    folder.mkdir(parents=True, exist_ok=True)
    data.write_text("".join(f'{{"prompt": "{letter}, please"}}\n' for letter in "abcdef"), encoding="utf-8")
    settings = {"name": "tiny", "device": "cpu", "cache_dir": str(cache), **model}
    section = {"data": {"source": str(data)}}
    config = parse_config(
        {
            "model": settings,
            "lora": {"r": LORA["r"], "alpha": LORA["alpha"]},
            "logging": {"progress": False},
            "sft": section,
            "reward": section,
            "evaluate": section,
            "policy": section | {"sampling": {"max_new_tokens": 8, "temperature": 0.7}},
        }
    )
    run = RunDir(folder / "run")
    run.create(dump_config(config))
    options = config.model.model_dump()
    backbone = tiny(cache, name=options.pop("name"), **{k: v for k, v in options.items() if k != "cache_dir"})
    for seed, role in enumerate(("sft", "policy"), start=1):
        out = run.open_stage(role, f"mark-{role}")
        noisy(backbone, role, seed=seed, std=std).save(role, out.path / "adapter", role={"role": role})
        out.finish({}, artifacts={role: "adapter"}, data={role: {"used": 6}})
    if evaluated:
        run.open_stage("evaluate", "mark-evaluate").finish({**RATES, "judge": "judge", "prompts": 40})
    return run
