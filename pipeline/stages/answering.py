"""Who answers in the evaluation: the run's own models, other runs' on the same base, and files of answers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pipeline.config import Config, ConfigError, OtherSystem
from pipeline.data.files import file_sha256
from pipeline.data.rows import DataError
from pipeline.data.schema import Prompt, prompt_text
from pipeline.evaluation.alpaca import read_outputs
from pipeline.evaluation.compare import pick_best
from pipeline.evaluation.judges.protocol import Answer, Scorer
from pipeline.lm.backbone import Backbone
from pipeline.lm.chat import ChatFormat
from pipeline.lm.generate import Completions, generate
from pipeline.progress import Bar
from pipeline.rundir import RunDir
from pipeline.stages.inputs import open_run, same_base

Asked = Sequence[tuple[Prompt, list[int]]]  # prompts, and their tokens
Groups = list[list[Answer]]  # by prompt


@dataclass(frozen=True)
class System:
    """Who answers: an adapter (None = the base) with the best of `candidates`, or a file of answers."""

    adapter: str | None = None
    candidates: int = 1
    outputs: Path | None = None


def systems_of(config: Config) -> dict[str, System]:
    """The run's own systems, then the config's others."""
    cfg = config.evaluate
    found = {"base": System(), "sft": System("sft"), "policy": System("policy")}
    if cfg.best_of > 1:
        found["best_of_n"] = System("sft", candidates=cfg.best_of)
    if config.dpo is not None:
        found["dpo"] = System("dpo")
    for name, other in cfg.systems.items():
        outputs = None if other.outputs is None else Path(other.outputs)
        found[name] = System(None if outputs else adapter_name(name), outputs=outputs)
    return found


def adapter_name(system: str) -> str:
    """Another run's adapter among the run's own."""
    return f"system_{system}"


def check_systems(config: Config) -> None:
    """Look for what other systems need, before hours are spent on what they shall be compared with.

    Raises:
        ConfigError: another run has another base, or another shape of adapters.
        RunError: it isn't there, or has no such adapter.
        AlpacaError: a file that isn't one of answers.
    """
    for name, other in config.evaluate.systems.items():
        if other.outputs is not None:
            read_outputs(Path(other.outputs))
        else:
            _adapter_folder(config, name, other)


def system_marks(config: Config) -> dict[str, str]:
    """What decides other systems' answers besides the config: a file's hash, or the other run's stage."""
    marks = {}
    for name, other in config.evaluate.systems.items():
        if other.outputs is not None:
            marks[f"systems.{name}"] = file_sha256(Path(other.outputs))
        else:
            assert other.run is not None
            marks[f"systems.{name}"] = RunDir(other.run).require(other.adapter).fingerprint
    return marks


def restore_systems(config: Config, backbone: Backbone) -> None:
    """Put other runs' adapters on the base. Raises as `check_systems`, and as `Backbone.restore`."""
    for name, other in config.evaluate.systems.items():
        if other.run is not None:
            backbone.restore(adapter_name(name), _adapter_folder(config, name, other))


def _adapter_folder(config: Config, name: str, other: OtherSystem) -> Path:
    assert other.run is not None
    its, run_dir = open_run(Path(other.run))
    if not same_base(config, its):
        raise ConfigError(
            f"evaluate.systems.{name}: {other.run} has another model or lora section, so its adapter doesn't fit on "
            "this base; export its answers with `align outputs` and give the file as outputs"
        )
    return run_dir.artifact(other.adapter, other.adapter)


def sample(
    backbone: Backbone,
    adapter: str | None,
    asked: Asked,
    count: int,
    config: Config,
    generator: torch.Generator,
    progress: Bar,
) -> tuple[Groups, list[Completions]]:
    """`count` answers per prompt under `adapter`; prompts of similar length share a batch."""
    sampling = config.evaluate.sampling or config.policy.sampling
    order = sorted(range(len(asked)), key=lambda i: len(asked[i][1]))
    groups: Groups = [[] for _ in asked]
    parts = []
    size = max(1, config.evaluate.batch_size // count)
    for start in range(0, len(order), size):
        chunk = order[start : start + size]
        done = generate(
            backbone,
            adapter,
            [asked[i][1] for i in chunk],
            group_size=count,
            temperature=sampling.temperature,
            max_new_tokens=sampling.max_new_tokens,
            generator=generator,
        )
        for row in range(len(done.prompts)):
            place, ids = chunk[row // count], done.ids(row)
            prompt, prompt_ids = asked[place]
            text, stopped = backbone.chat.decode(ids), bool(done.stopped[row])
            groups[place].append(Answer(prompt.messages, text, prompt_ids, ids, stopped))
        parts.append(done)
        progress.advance(len(done.prompts), {"system": adapter or "base"})
    return groups, parts


def best_of(groups: Sequence[Sequence[Answer]], count: int, scorer: Scorer) -> Groups:
    """Of every `count` samples of a prompt the one that `scorer` scores highest."""
    parts = [group[start : start + count] for group in groups for start in range(0, len(group), count)]
    best = iter(pick_best(parts, scorer) if count > 1 else [part[0] for part in parts])
    return [[next(best) for _ in range(len(group) // count)] for group in groups]


def answers_from(path: Path, asked: Asked, samples: int, chat: ChatFormat) -> Groups:
    """Answers of a file to the prompts, found by the prompt's text; each stands for all of a prompt's samples.

    Raises:
        DataError: a prompt has no answer.
        AlpacaError: not a file of answers.
    """
    texts: Mapping[str, str] = {row.instruction.strip(): row.output for row in read_outputs(path)}
    groups: Groups = []
    missing: list[Any] = []
    for prompt, ids in asked:
        text = texts.get(prompt_text(prompt.messages).strip())
        if text is None:
            missing.append(prompt)
            continue
        answer = Answer(prompt.messages, text, ids, chat.completion_ids(prompt.messages, text), True)
        groups.append([answer] * samples)
    if missing:
        raise DataError(
            f"{path} has no answer to {len(missing)} of {len(asked)} prompts, such as "
            f"{prompt_text(missing[0].messages)[:80]!r} ({missing[0].where})"
        )
    return groups
