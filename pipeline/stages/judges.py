"""Judges as the config names them: what they need is looked at before a run, and they are built."""

import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from pipeline import processes
from pipeline.config import (
    Config,
    ConfigError,
    EnsembleJudgeConfig,
    HumanJudgeConfig,
    LengthJudgeConfig,
    LlmJudgeConfig,
    LocalLlmJudgeConfig,
    RewardModelJudgeConfig,
    RubricJudgeConfig,
)
from pipeline.data.files import file_sha256
from pipeline.evaluation.judges.endpoint import Endpoint, require_client
from pipeline.evaluation.judges.human import FILE, HumanJudge, People
from pipeline.evaluation.judges.llm import LlmJudge
from pipeline.evaluation.judges.llm_local import LocalLlmJudge
from pipeline.evaluation.judges.progress import Progress
from pipeline.evaluation.judges.protocol import Answer, ByScore, Judge, Verdict
from pipeline.evaluation.judges.replies import Replies
from pipeline.evaluation.judges.reward import ClassifierScorer, EnsembleScorer, RetokenisedScorer, RewardModelScorer
from pipeline.evaluation.judges.rubric import (
    Criterion,
    LengthScorer,
    RubricScorer,
    function_check,
    function_file,
    pattern_check,
)
from pipeline.lm.backbone import Backbone
from pipeline.lm.classifier import Classifier
from pipeline.lm.reward import RewardModel
from pipeline.progress import bar
from pipeline.rundir import RunDir
from pipeline.stages.inputs import open_run, reward_section, same_base

REPLIES = "judges"  # in the run folder, beside the stages: replies that were paid for outlive --force
# No adapter will stand on a judge's base, but its loader wants a shape.
NO_ADAPTERS: dict[str, Any] = {"r": 1, "alpha": 1.0, "dropout": 0.0, "targets": "all-linear", "layers": "all"}


def check_judges(config: Config) -> None:
    """Look for what the judges need, before hours are spent on what they shall judge.

    Raises:
        ConfigError: a key isn't in the environment.
        JudgeError: a package is missing, a rubric's function can't be imported, or there is no such file of labels.
        RunError: another run isn't there, or has no such model.
    """
    for name, judge in config.evaluate.judges.items():
        if isinstance(judge, LlmJudgeConfig):
            require_client()
            _api_key(name, judge)
        elif isinstance(judge, RubricJudgeConfig):
            _criteria(judge)
        elif isinstance(judge, RewardModelJudgeConfig) and judge.run is not None:
            _other_run(judge)
        elif isinstance(judge, HumanJudgeConfig) and judge.labels is not None:
            People(Path(judge.labels))


def judge_marks(config: Config, run_dir: RunDir) -> dict[str, Any]:
    """What decides verdicts besides the config: the other run's fingerprint, the source of a rubric's functions, what
    people have said."""
    marks: dict[str, Any] = {}
    for name, judge in config.evaluate.judges.items():
        if isinstance(judge, RubricJudgeConfig):
            files = [function_file(check.function) for check in judge.checks if check.function is not None]
            marks[name] = [file_sha256(file) for file in files if file is not None]
        elif isinstance(judge, RewardModelJudgeConfig) and judge.run is not None:
            marks[name] = RunDir(judge.run).require("reward").fingerprint
        elif isinstance(judge, HumanJudgeConfig) and (said := people(judge, run_dir)) is not None:
            marks[name] = file_sha256(said.path)
    return marks


def people(judge: HumanJudgeConfig, run_dir: RunDir) -> People | None:
    """What people said; None where nobody has compared the run's own answers yet, as before its first evaluation."""
    if judge.labels is not None:
        return People(Path(judge.labels))
    own = run_dir.path / "collect"
    return People(own) if (own / FILE).is_file() else None


def build_judges(config: Config, run_dir: RunDir, backbone: Backbone) -> dict[str, Judge]:
    """The judges of `evaluate.judges`, by name; models of their own are in memory only while they are asked.

    Raises:
        As `check_judges`; asking may raise ModelError besides.
    """
    return {name: build_judge(config, name, run_dir, backbone) for name in config.evaluate.judges}


def headline_judge(run_dir: RunDir) -> str:
    """The run's own judge: the held-out one, or the reward model itself where none was trained."""
    return "judge" if "judge" in run_dir.require("reward").artifacts else "reward"


def own_judge(
    run_dir: RunDir, backbone: Backbone, name: str, *, batch_size: int, progress: Progress
) -> RewardModelScorer:
    """A reward model that the run trained itself: `reward`, `judge`, `judge_2`, …"""
    if name not in backbone.roles:
        backbone.restore(name, run_dir.artifact("reward", name))
    return RewardModelScorer(RewardModel(backbone, name), batch_size=batch_size, progress=progress)


class Deferred:
    """A judge that is loaded when it is asked, and let go afterwards."""

    def __init__(self, name: str, load: Callable[[], Judge]) -> None:
        self.name, self._load = name, load

    def compare(self, pairs: Sequence[tuple[Answer, Answer]]) -> list[Verdict]:
        return self._load().compare(pairs)


class AskedOnce:
    """A judge that answers for money: of several processes the first one asks, and tells the others."""

    def __init__(self, judge: Judge) -> None:
        self.name, self._judge = judge.name, judge

    def compare(self, pairs: Sequence[tuple[Answer, Answer]]) -> list[Verdict]:
        return processes.told(lambda: self._judge.compare(pairs))


def build_judge(config: Config, name: str, run_dir: RunDir, backbone: Backbone) -> Judge:
    """One of them."""
    judge, progress = config.evaluate.judges[name], partial(bar, visible=config.logging.progress)
    if isinstance(judge, LlmJudgeConfig):
        return AskedOnce(_llm(judge, name, run_dir, progress))
    if isinstance(judge, LocalLlmJudgeConfig):
        return Deferred(name, lambda: _local_llm(judge, name, config, backbone, progress))
    if isinstance(judge, RubricJudgeConfig):
        return ByScore(RubricScorer(name, _criteria(judge)))
    if isinstance(judge, LengthJudgeConfig):
        return ByScore(LengthScorer(name, judge.prefer))
    if isinstance(judge, HumanJudgeConfig):
        return HumanJudge(name, people(judge, run_dir))
    if isinstance(judge, EnsembleJudgeConfig):
        options: dict[str, Any] = {"batch_size": judge.batch_size, "progress": progress}
        members = [own_judge(run_dir, backbone, one, **options) for one in reward_section(config).judge_names]
        return ByScore(EnsembleScorer(name, members, penalty=judge.penalty))
    return Deferred(name, lambda: _reward_model(judge, name, config, backbone, progress))


def _llm(judge: LlmJudgeConfig, name: str, run_dir: RunDir, progress: Progress) -> Judge:
    asked = {"temperature", "max_tokens", "timeout", "max_retries", "requests_per_minute"}
    endpoint = Endpoint(judge.base_url, judge.model, api_key=_api_key(name, judge), **judge.model_dump(include=asked))
    replies = Replies(Path(judge.cache) if judge.cache else run_dir.path / REPLIES / f"{name}.jsonl")
    into, out = judge.price_per_million_input, judge.price_per_million_output
    return LlmJudge(
        name,
        endpoint,
        replies,
        instructions=judge.instructions,
        prices=None if into is None or out is None else (into, out),
        concurrency=judge.concurrency,
        progress=progress,
    )


def _api_key(name: str, judge: LlmJudgeConfig) -> str | None:
    if judge.api_key_env is None:
        return None
    key = os.environ.get(judge.api_key_env)
    if not key:
        raise ConfigError(f"evaluate.judges.{name}: the environment variable {judge.api_key_env} isn't set")
    return key


def _local_llm(judge: LocalLlmJudgeConfig, name: str, config: Config, backbone: Backbone, progress: Progress) -> Judge:
    if judge.model is not None:
        here = config.model.model_dump(include={"device", "dtype", "matmul", "cache_dir", "fast", "trust_remote_code"})
        there = judge.model_dump(include={"sha256", "chat_template"})
        backbone = Backbone.load(judge.model, lora=NO_ADAPTERS, **here, **there)
    options = judge.model_dump(include={"instructions", "tie", "batch_size"})
    return LocalLlmJudge(name, backbone, **options, progress=progress)


def _criteria(judge: RubricJudgeConfig) -> list[Criterion]:
    criteria = []
    for one in judge.checks:
        if one.function is not None:
            check = function_check(one.function)
        else:
            check = pattern_check(one.must or one.must_not or "", wanted=one.must is not None)
        criteria.append(Criterion(one.name, check, one.weight))
    return criteria


def _reward_model(
    judge: RewardModelJudgeConfig, name: str, config: Config, backbone: Backbone, progress: Progress
) -> Judge:
    if judge.model is not None:
        classifier = Classifier.load(judge.model, device=config.model.device, dtype=config.model.dtype)
        return ByScore(ClassifierScorer(name, classifier, batch_size=judge.batch_size, progress=progress))
    options: dict[str, Any] = {"name": name, "batch_size": judge.batch_size, "progress": progress}
    other, folder = _other_run(judge)
    if same_base(other, config):
        adapter = f"judges_{name}"
        if adapter not in backbone.roles:
            backbone.restore(adapter, folder)
        return ByScore(RewardModelScorer(RewardModel(backbone, adapter), **options))
    theirs = other.model.model_dump() | config.model.model_dump(include={"device", "matmul", "cache_dir"})
    base = Backbone.load(theirs.pop("name"), lora=other.model_dump()["lora"], **theirs)
    base.restore(judge.adapter, folder)
    return ByScore(RetokenisedScorer(RewardModel(base, judge.adapter), **options))


def _other_run(judge: RewardModelJudgeConfig) -> tuple[Config, Path]:
    """Another run's config, and the folder of its adapter."""
    assert judge.run is not None
    other, run_dir = open_run(Path(judge.run))
    return other, run_dir.artifact("reward", judge.adapter)
