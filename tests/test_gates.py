"""Every gate is tripped by its own fault, says what was measured and what to do, and is passed over by name only."""

from typing import Any, get_args

import pytest

from pipeline.config import GateName
from pipeline.gates import GATES, GateError, findings, require

SOUND: dict[str, dict[str, Any]] = {
    "sft": {"truncated_away": 0.0, "supervised_tokens": 900, "loss_before": 2.5, "loss": 1.9},
    "reward": {
        "sft_eos_rate": 0.97,
        "accuracy": 0.72,
        "accuracy_low": 0.66,
        "length_baseline": 0.51,
        "score_batch_error": 1e-5,
    },
    "dpo": {"loss_before": 0.6931, "loss": 0.64},
    "policy": {"kl_first": 0.0, "first_ratio_error": 1e-6},
}
FAULTS = {
    "sft_rows": {"truncated_away": 0.4},
    "sft_learns": {"loss": 2.6},
    "sft_ends": {"sft_eos_rate": 0.02},
    "reward_beats_chance": {"accuracy_low": 0.49, "length_baseline": 0.4},
    "reward_beats_length": {"length_baseline": 0.7},
    "score_alone": {"score_batch_error": 0.3},
    "dpo_learns": {"loss": 0.7},
    "starts_at_reference": {"kl_first": 0.7},
    "first_ratio": {"first_ratio_error": 0.5},
}


def stage_of(name: str) -> str:
    return next(gate.stage for gate in GATES if gate.name == name)


def test_the_config_knows_every_gate() -> None:
    assert list(get_args(GateName)) == [gate.name for gate in GATES]
    assert set(FAULTS) == set(get_args(GateName))


@pytest.mark.parametrize("stage", SOUND)
def test_sound_figures_pass(stage: str) -> None:
    require(stage, SOUND[stage])
    assert all(finding.held for finding in findings(stage, SOUND[stage]))


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_closes_its_own_gate_alone(name: str) -> None:
    stage = stage_of(name)
    figures = SOUND[stage] | FAULTS[name]
    assert [finding.gate.name for finding in findings(stage, figures) if not finding.held] == [name]
    with pytest.raises(GateError, match=rf"(?s)gate {name}: .*usual: .*What to do: .*gates.skip=\[{name}\]"):
        require(stage, figures)
    with pytest.raises(GateError):
        require(stage, figures, [other for other in FAULTS if other != name])
    require(stage, figures, [name])


def test_no_supervised_token_at_all_closes_it_too() -> None:
    with pytest.raises(GateError, match="sft_rows"):
        require("sft", SOUND["sft"] | {"supervised_tokens": 0})


def test_several_are_named_together() -> None:
    with pytest.raises(GateError, match=r"gates.skip=\[reward_beats_chance, reward_beats_length\]"):
        require("reward", SOUND["reward"] | {"accuracy_low": 0.3})


def test_a_figure_that_was_not_measured_says_nothing() -> None:
    assert [finding.gate.name for finding in findings("reward", {"sft_eos_rate": 0.9})] == ["sft_ends"]
