"""Run stages in order; skip what is done and unchanged."""

import gc
from collections.abc import Sequence
from typing import Any

from pipeline import gates, processes
from pipeline.checkpoints import Checkpoints
from pipeline.config import Config, ConfigError, dump_config
from pipeline.lm.generate import give_back
from pipeline.progress import say
from pipeline.rundir import ALL_STAGES, NEEDS, RunDir, StageResult, fingerprint
from pipeline.stages import dpo, evaluate, policy, reward, sft
from pipeline.stages.answering import check_systems, system_marks
from pipeline.stages.inputs import reward_section, source_hash
from pipeline.stages.judges import check_judges, judge_marks
from pipeline.stages.terms import check_terms, term_marks
from pipeline.stages.tracking import track
from pipeline.stopping import stopping

SHARED = ("seed", "model", "lora")
# Sections a stage reads besides its own: sampling settings, the demonstrations that phrases are held against, and the
# pairs with what decides which of them are the reward model's.
PAIRS = tuple(f"reward.{name}" for name in ("data", "validation", "test", "judge"))
READS = {"reward": ("policy.sampling",), "dpo": PAIRS, "evaluate": ("policy.sampling", "sft.data")}


def stages_of(config: Config) -> list[str]:
    """The run's stages in order: sft (→ reward) (→ dpo) → policy → evaluate."""
    return [stage for stage in ALL_STAGES if getattr(config, stage) is not None]


def needs_of(config: Config, stage: str) -> list[str]:
    """The stages that one is built on."""
    return [need for need in stages_of(config) if need in NEEDS[stage]]


def run_all(config: Config, *, force: bool = False) -> RunDir:
    """All of the run's stages."""
    return run_stages(config, stages_of(config), force=force)


def run_stages(config: Config, stages: Sequence[str], *, force: bool = False) -> RunDir:
    """Run the named stages. A finished one whose config, data and predecessors are unchanged is skipped.

    Raises:
        RunError: a predecessor is missing, or the folder can't be written.
        GateError: a predecessor's figures don't hold.
        ProcessError: one of several processes has ended.
        ConfigError, JudgeError: a judge of the evaluation lacks what it needs.
        RewardError: a term of the reward does.
    """
    assert config.run_dir is not None
    run_dir = RunDir(config.run_dir)
    run_dir.create(dump_config(config))
    looked = False
    with processes.joined(config.model.device), stopping():
        for stage in stages:
            mark, done = processes.told(lambda stage=stage: _standing(config, run_dir, stage, force))  # type: ignore[misc]
            if done:
                say(f"{stage}: done already, unchanged; skipped", visible=config.logging.progress)
                continue
            if not looked:
                _look_ahead(config, stages)
                looked = True
            for need in needs_of(config, stage):
                gates.require(need, run_dir.require(need).metrics, config.gates.skip)
            run_stage(config, run_dir, stage, mark, resume=not force)
            processes.wait()  # for its result
    return run_dir


def _look_ahead(config: Config, stages: Sequence[str]) -> None:
    """What later stages need from elsewhere, before hours are spent on earlier ones."""
    if "policy" in stages:
        check_terms(config)
    if "evaluate" in stages:
        check_judges(config)
        check_systems(config)


def _standing(config: Config, run_dir: RunDir, stage: str, force: bool) -> tuple[str, bool]:
    """A stage's fingerprint, and whether it is done with just that one; by force it isn't, damaged or not."""
    mark = stage_fingerprint(config, run_dir, stage)
    result = None if force else run_dir.result(stage)
    done = result is not None and result.fingerprint == mark
    if done:
        run_dir.tidy(stage)
    return mark, done


def run_stage(config: Config, run_dir: RunDir, stage: str, mark: str, *, resume: bool = True) -> StageResult:
    """Run one stage, from its newest checkpoint where an interrupted run left one.

    Raises:
        RunError: the folder can't be written (any more).
    """
    gc.collect()  # the model of the stage before is full of cycles; without this, two of them stay in memory
    give_back()
    out = run_dir.open_stage(stage, mark, resume=resume)
    visible = config.logging.progress
    checkpoints = Checkpoints(out, **config.checkpoint.model_dump(), visible=visible)
    with track(config, run_dir, out):
        if stage == "sft":
            result = sft.run(config, out, checkpoints)
        else:
            chosen = {"reward": reward, "dpo": dpo, "policy": policy, "evaluate": evaluate}[stage]
            result = chosen.run(config, run_dir, out, checkpoints)
    say(
        f"{stage}: done in {result.seconds:.0f} s, peak {result.peak_rss_mb:.0f} MB"
        + (f", {result.peak_gpu_mb:.0f} MB on the GPU" if result.peak_gpu_mb is not None else ""),
        visible=visible,
    )
    for finding in gates.findings(stage, result.metrics):
        name = finding.gate.name
        if not finding.held:
            passed_over = name in config.gates.skip
            say(f"gate {name}: closed, passed over (gates.skip)" if passed_over else gates.sentence(finding))
    return result


def stage_fingerprint(config: Config, run_dir: RunDir, stage: str) -> str:
    """Hash of what decides the stage's outcome: shared sections, its own, what else it reads, data, predecessors.

    Raises:
        ConfigError: the stage is off.
        RunError: a predecessor is missing.
    """
    section = getattr(config, stage)
    if section is None:
        how = "; `dpo={}` turns it on with its defaults" if stage == "dpo" else ""
        raise ConfigError(f"there is no {stage} section{how}")
    before = {need: run_dir.require(need).fingerprint for need in needs_of(config, stage)}
    also = {path: _at(config, path) for path in READS.get(stage, ())}
    data = reward_section(config).data if stage == "dpo" else section.data
    if stage == "policy":
        also |= term_marks(config)
    if stage == "evaluate":
        also |= judge_marks(config, run_dir) | system_marks(config)
    shared = {name: _plain(getattr(config, name)) for name in SHARED}
    return fingerprint(stage, shared, section.model_dump(), source_hash(config, data), before, also)


def _at(config: Config, path: str) -> Any:
    value: Any = config
    for name in path.split("."):
        value = getattr(value, name)
    return _plain(value)


def _plain(value: Any) -> Any:
    return value.model_dump() if hasattr(value, "model_dump") else value
