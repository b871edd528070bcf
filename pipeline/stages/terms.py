"""What the policy is rewarded for, as the config names it: looked at before a run, loaded, and put on one scale."""

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from pipeline.config import Config, RewardTerm
from pipeline.config.rewards import OWN
from pipeline.config.supervised import CALIBRATION_SAMPLES
from pipeline.data.files import file_sha256
from pipeline.data.schema import Prompt
from pipeline.evaluation.functions import FunctionError, function_source, load_function
from pipeline.evaluation.reward_terms import (
    ClassifierTerm,
    Completed,
    FunctionTerm,
    ModelTerm,
    RewardError,
    Term,
    Terms,
    completed,
)
from pipeline.lm.backbone import Backbone
from pipeline.lm.classifier import Classifier
from pipeline.lm.policy import completion_texts, to_rollout
from pipeline.lm.reward import RewardModel
from pipeline.lm.roles import HEAD_FILE
from pipeline.stages.inputs import open_run, same_base
from pipeline.stages.reward import sft_samples


def adapter_name(term: str) -> str:
    """Another run's reward model among the run's own adapters."""
    return f"rewards_{term}"


def check_terms(config: Config) -> None:
    """Look for what is rewarded before hours are spent on what comes before.

    Raises:
        RewardError: a function can't be imported, or an adapter's folder holds no reward model of this base.
        RunError: another run has no reward model.
        ModelError: neither a folder nor a sequence classifier with one label.
    """
    for name, term in config.policy.rewards.items():
        if term.function is not None:
            _function(config, name, term)
        elif _adapter_folder(config, name, term) is None and term.model not in (None, OWN):
            Classifier.check(str(term.model))


def term_marks(config: Config) -> dict[str, Any]:
    """What decides the reward besides the config: the source of functions, the weights of models of elsewhere."""
    marks: dict[str, Any] = {}
    for name, term in config.policy.rewards.items():
        if term.function is not None:
            _function(config, name, term)
            source = function_source(term.function, _folders(config))
            marks[name] = None if source is None else _source_hash(source)
        elif (folder := _adapter_folder(config, name, term)) is not None:
            marks[name] = [file_sha256(file) for file in sorted(folder.glob("*.safetensors"))]
    return marks


def restore_terms(config: Config, backbone: Backbone) -> None:
    """Put reward models of elsewhere on the base. Raises as `check_terms`, and as `Backbone.restore`."""
    for name, term in config.policy.rewards.items():
        if (folder := _adapter_folder(config, name, term)) is not None:
            backbone.restore(adapter_name(name), folder)


def function_terms(config: Config) -> dict[str, FunctionTerm]:
    """The functions among the terms, by name. Raises RewardError where one can't be had."""
    return {
        name: FunctionTerm(_place(name, term), _function(config, name, term))
        for name, term in config.policy.rewards.items()
        if term.function is not None
    }


def build_terms(config: Config, backbone: Backbone) -> Terms:
    """The terms of `policy.rewards`, on a base that `restore_terms` has prepared.

    Raises:
        RewardError, ModelError, TemplateError: a function or a model that can't be had.
    """
    rewards, size = config.policy.rewards, 2 * config.policy.microbatch_size
    functions = function_terms(config)
    terms: dict[str, Term] = {}
    for name, term in rewards.items():
        if name in functions:
            terms[name] = functions[name]
        elif term.model == OWN:
            terms[name] = ModelTerm(RewardModel(backbone, OWN), size)
        elif adapter_name(name) in backbone.roles:
            terms[name] = ModelTerm(RewardModel(backbone, adapter_name(name)), size)
        else:
            assert term.model is not None
            classifier = Classifier.load(term.model, device=config.model.device, dtype=config.model.dtype)
            terms[name] = ClassifierTerm(name, classifier, size)
    foreign = [name for name, term in rewards.items() if term.model not in (None, OWN)]
    return Terms(terms, {name: term.weight for name, term in rewards.items()}, foreign)


def calibration(backbone: Backbone, encoded: Sequence[tuple[Prompt, list[int]]], config: Config) -> list[Completed]:
    """SFT's answers to the first prompts: what a score of 0 means to a reward model of elsewhere."""
    asked = encoded[: CALIBRATION_SAMPLES if config.reward is None else config.reward.calibration_samples]
    prompts = iter(prompt for prompt, _ in asked)
    found = []
    for part in sft_samples(backbone, [ids for _, ids in asked], config):
        rollout = to_rollout(backbone, part)
        texts = completion_texts(backbone, rollout)
        found.append(completed(rollout, [next(prompts) for _ in texts], texts))
    return found


def _place(name: str, term: RewardTerm) -> str:
    return f"policy.rewards.{name} ({term.function or term.model})"


@cache
def _source_hash(file: Path) -> str:
    """Of a module's source as it was first asked for: a process goes on with the code that it has imported."""
    return file_sha256(file)


def _folders(config: Config) -> list[str]:
    return [] if config.code_dir is None else [config.code_dir]


def _function(config: Config, name: str, term: RewardTerm) -> Callable[..., Any]:
    assert term.function is not None
    try:
        return load_function(term.function, _folders(config))
    except FunctionError as error:
        raise RewardError(f"policy.rewards.{name}: {error}") from error


def _adapter_folder(config: Config, name: str, term: RewardTerm) -> Path | None:
    """Where a reward model for this base lies, of another run or by itself; None for functions, the run's own, and
    sequence classifiers."""
    if term.model is None or term.model == OWN:
        return None
    folder = Path(term.model)
    if (folder / "config.yaml").is_file():
        its, run_dir = open_run(folder)
        if not same_base(its, config):
            raise RewardError(
                f"{_place(name, term)} has another model or lora section, so its adapter doesn't fit on this base"
            )
        folder = run_dir.artifact("reward", "reward")
    elif not any((folder / file).is_file() for file in ("adapter_config.json", HEAD_FILE)):
        return None
    if not (folder / HEAD_FILE).is_file():
        raise RewardError(f"{_place(name, term)} has no {HEAD_FILE}: it is no reward model's folder")
    return folder
