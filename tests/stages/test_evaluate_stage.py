"""An evaluation that goes on after a stop: nothing is scored twice, and no figure depends on what came before it."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from pipeline.checkpoints import Checkpoints
from pipeline.config import Config, ConfigError, dump_config, parse_config
from pipeline.data import DataError
from pipeline.evaluation.alpaca import Output, outputs_of, write_outputs
from pipeline.lm.reward import RewardModel
from pipeline.lm.trunk import LowerTrunk
from pipeline.rundir import RunDir, StageResult, read_jsonl
from pipeline.stages import evaluate as stage
from pipeline.stages.answering import check_systems
from tests.lm.builders import noisy, tiny

UPPER = {"r": 4, "alpha": 8.0, "layers": "upper"}


@pytest.fixture
def before(cache: Path, tmp_path: Path) -> RunDir:
    """A run whose evaluation is next: random adapters and heads on the upper layers."""
    run_dir = RunDir(tmp_path / "run")
    backbone = tiny(cache, lora=UPPER)
    for stage_name, adapters in (("sft", ["sft"]), ("reward", ["reward", "judge"]), ("policy", ["policy"])):
        out = run_dir.open_stage(stage_name, stage_name)
        for name in adapters:
            noisy(backbone, name, seed=len(name), head=stage_name == "reward")
            backbone.save(name, out.path / name, role={"role": name, "score_mean": 0.0, "score_std": 1.0})
        out.finish({"judge_accuracy": 0.7}, artifacts={name: name for name in adapters})
    return run_dir


@pytest.fixture
def config(cache: Path, tmp_path: Path) -> Config:
    data = tmp_path / "prompts.jsonl"
    data.write_text("".join(f'{{"prompt": "{letter}", "completion": "Yes."}}\n' for letter in "abcdef"))
    section: dict[str, Any] = {"data": {"source": str(data)}}
    sampling = {"sampling": {"max_new_tokens": 6}, "samples": 2, "best_of": 2, "bootstrap": 50, "batch_size": 4}
    return parse_config(
        {
            "model": {"name": "tiny", "device": "cpu", "cache_dir": str(cache)},
            "lora": UPPER,
            "logging": {"progress": False},
            **dict.fromkeys(("sft", "reward", "policy"), section),
            "evaluate": section | sampling,
        }
    )


Scored = list[tuple[str, tuple[int, ...]]]


@pytest.fixture
def scored(monkeypatch: pytest.MonkeyPatch) -> Scored:
    """What reward models were asked about: (adapter, sequence)."""
    seen: Scored = []
    original = RewardModel.score_sequences

    def score(self: RewardModel, sequences: Sequence[Sequence[int]], **options: Any) -> Tensor:
        seen.extend((self.adapter, tuple(sequence)) for sequence in sequences)
        return original(self, sequences, **options)

    monkeypatch.setattr(RewardModel, "score_sequences", score)
    return seen


def evaluate(config: Config, before: RunDir, stop: Callable[[int], bool] = lambda _: False) -> StageResult | None:
    """Run the stage, or go on with it; None when it was stopped after a system."""
    out = before.open_stage("evaluate", "mark", resume=True)
    checkpoints = Checkpoints(out, seconds=0)
    steps = 0

    def step(name: str, state: Callable[[], Any]) -> None:
        nonlocal steps
        steps += 1
        checkpoints.save(name, state())
        if stop(steps):
            raise KeyboardInterrupt

    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(checkpoints, "step", step)
            return stage.run(config, before, out, checkpoints)
    except KeyboardInterrupt:
        return None


def test_what_was_scored_before_a_stop_is_not_scored_again(before: RunDir, config: Config, scored: Scored) -> None:
    whole = evaluate(config, before)
    assert whole is not None
    everything = list(scored)
    assert len(set(everything)) == len(everything)
    scored.clear()
    assert evaluate(config, before, stop=lambda steps: steps == 2) is None
    first, second = len(scored), evaluate(config, before)
    assert 0 < first < len(everything)
    assert scored == everything
    assert second is not None
    assert second.metrics == whole.metrics


def test_boundary_states_of_one_system_are_forgotten_before_the_next(
    before: RunDir, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a text that two systems share would be computed beside other texts after a stop than without one."""
    kept: list[int] = []
    trunks: list[Any] = []
    original = LowerTrunk.__init__

    def keep(self: LowerTrunk, *arguments: Any) -> None:
        trunks.append(self)
        original(self, *arguments)

    monkeypatch.setattr(LowerTrunk, "__init__", keep)

    def look(steps: int) -> bool:
        kept.append(sum(len(trunk._memory) for trunk in trunks))
        return False

    assert evaluate(config, before, stop=look) is not None
    assert trunks
    assert kept == [0, 0, 0, 0]


def test_several_samples_of_a_prompt_are_a_cluster(before: RunDir, config: Config) -> None:
    result = evaluate(config, before)
    assert result is not None
    figures = result.metrics
    for pair in ("policy_vs_sft", "policy_vs_best_of_n"):
        rate = {key: figures[f"win_rate.{pair}_{key}"] for key in ("wins", "ties", "losses", "n")}
        assert rate["n"] == 6
        assert rate["wins"] + rate["ties"] + rate["losses"] == 12


def with_systems(config: Config, **systems: dict[str, str]) -> Config:
    told = config.model_dump()
    return parse_config(told | {"evaluate": told["evaluate"] | {"systems": systems}})


def test_other_runs_and_files_of_answers_are_compared_too(before: RunDir, config: Config, tmp_path: Path) -> None:
    """The run's own SFT as another system draws other noise; the policy's own answers, from a file, all tie."""
    (before.path / "config.yaml").write_text(dump_config(config))
    assert evaluate(config, before) is not None
    rows = read_jsonl(before.path / "evaluate" / "samples.jsonl")
    file = tmp_path / "outputs.json"
    write_outputs(file, outputs_of(rows, "policy", "whoever"))
    single = parse_config(config.model_dump() | {"evaluate": config.evaluate.model_dump() | {"samples": 1}})
    more = with_systems(single, whoever={"outputs": str(file)}, twin={"run": str(before.path), "adapter": "sft"})
    result = evaluate(more, before)
    assert result is not None
    figures = result.metrics
    assert {row["system"] for row in figures["standing"]} == {"base", "sft", "policy", "best_of_n", "whoever", "twin"}
    assert figures["win_rate.policy_vs_twin_n"] == 6
    again = read_jsonl(before.path / "evaluate" / "samples.jsonl")
    assert [row["answers"]["whoever"]["text"] for row in again] == [row["answers"]["policy"]["text"] for row in rows]
    assert {"difference.policy_minus_twin_over_sft", "difference.policy_minus_best_of_n_over_sft_low"} <= set(figures)


def test_every_sample_is_kept_for_reading(before: RunDir, config: Config) -> None:
    assert config.evaluate.samples == 2
    assert evaluate(config, before) is not None
    rows = read_jsonl(before.path / "evaluate" / "samples.jsonl")
    assert all(len(answer["others"]) == 1 for row in rows for answer in row["answers"].values())
    assert any(answer["others"] != [answer["text"]] for row in rows for answer in row["answers"].values())
    assert [row for row in rows if "messages" in row] == []  # of one turn, which `prompt` has


def test_a_file_without_an_answer_to_a_prompt_is_refused(before: RunDir, config: Config, tmp_path: Path) -> None:
    file = tmp_path / "outputs.json"
    write_outputs(file, [Output("a", "Yes.", "whoever")])
    with pytest.raises(DataError, match=r"no answer to 5 of 6 prompts, such as 'b'"):
        evaluate(with_systems(config, whoever={"outputs": str(file)}), before)


def test_an_adapter_of_another_shape_is_refused_before_anything_runs(
    before: RunDir, config: Config, tmp_path: Path
) -> None:
    other = parse_config(config.model_dump() | {"lora": {"r": 8}})
    (before.path / "config.yaml").write_text(dump_config(other))
    with pytest.raises(ConfigError, match="another model or lora section"):
        check_systems(with_systems(config, twin={"run": str(before.path)}))


@pytest.mark.parametrize(
    ("systems", "message"),
    [
        ({"sft": {"run": "x"}}, "can't be a system's name"),
        ({"other": {}}, "exactly one of run"),
        ({"other": {"run": "x", "outputs": "y"}}, "exactly one of run"),
    ],
)
def test_bad_systems_are_named(config: Config, systems: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        with_systems(config, **systems)
