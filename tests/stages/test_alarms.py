"""Each alarm is raised by its own fault and by no other; what stops a run takes it back to the judge's best."""

from typing import Any

import pytest
import torch

from pipeline.config import AlarmConfig
from pipeline.stages.alarms import ALARMS, Watch, raised

CFG = AlarmConfig(window=3)


def step(**changes: float) -> dict[str, float]:
    figures = {
        "objective/kl": 5.0,
        "objective/tokens": 30.0,
        "objective/repetition": 0.02,
        "objective/score": 0.5,
        "objective/return": 0.3,
        "objective/judge": 0.4,
        "policy/entropy": 1.0,
    }
    return figures | {name.replace("__", "/"): value for name, value in changes.items()}


def without_judge(row: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in row.items() if name != "objective/judge"}


FAULTS: dict[str, list[dict[str, float]]] = {
    "kl": [step(objective__kl=100.0)] * 3,
    "entropy": [step(policy__entropy=0.1)] * 3,
    "length": [step(objective__tokens=80.0)] * 3,
    "repetition": [step(objective__repetition=0.5)] * 3,
    "over_optimisation": [step(objective__judge=-0.4, objective__score=1.5)] * 3,
}


def test_every_alarm_has_its_fault() -> None:
    assert set(FAULTS) == {alarm.name for alarm in ALARMS}


def test_a_steady_run_raises_none() -> None:
    history = [step(objective__score=0.1 * n, objective__judge=0.05 * n, objective__kl=0.5 * n) for n in range(20)]
    assert all(raised(history[:end], CFG) == {} for end in range(1, 21))


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_raises_its_own_alarm_alone(name: str) -> None:
    history = [step()] * 3 + FAULTS[name]
    assert list(raised(history, CFG)) == [name]
    assert raised(history[:-2], CFG) == {}  # one bad step of three isn't the mean


def test_shorter_is_a_drift_too() -> None:
    assert list(raised([step()] * 3 + [step(objective__tokens=10.0)] * 3, CFG)) == ["length"]


def test_a_judge_that_falls_together_with_the_score_is_no_over_optimisation() -> None:
    assert raised([step()] * 3 + [step(objective__judge=-0.4, objective__score=0.2)] * 3, CFG) == {}


def test_without_a_judge_it_cannot_be_seen() -> None:
    history = [without_judge(row) for row in [step()] * 3 + FAULTS["over_optimisation"] + FAULTS["kl"]]
    assert list(raised(history, CFG)) == ["kl"]


class Learner:
    """As much of the real one as a watch needs."""

    def __init__(self) -> None:
        self.parameters = [torch.nn.Parameter(torch.zeros(2))]

    def at(self, value: float) -> None:
        with torch.no_grad():
            self.parameters[0].fill_(value)


def walk(watch: Watch, learner: Learner, rows: list[dict[str, float]]) -> tuple[list[dict[str, float]], str | None]:
    """Train until the watch says stop; the weights are the number of steps."""
    history: list[dict[str, float]] = []
    for row in rows:
        history.append(row)
        learner.at(float(len(history)))
        stop = watch.look(history)
        if stop:
            return history, stop
    return history, None


def test_it_goes_back_to_the_judges_best(capsys: pytest.CaptureFixture[str]) -> None:
    learner: Any = Learner()
    watch = Watch(learner, CFG)
    rows = [step(objective__judge=0.1 * n, objective__score=0.1 * n) for n in range(8)]
    history, stop = walk(watch, learner, rows + [step(objective__judge=-1.0, objective__score=2.0)] * 5)
    assert stop == "over_optimisation"
    assert watch.first == {"over_optimisation": len(history)}
    assert watch.go_back() == 8
    assert learner.parameters[0].tolist() == [8.0, 8.0]
    assert "since step 8" in " ".join(capsys.readouterr().err.split())


def test_an_alarm_that_may_not_stop_warns_once(capsys: pytest.CaptureFixture[str]) -> None:
    learner: Any = Learner()
    watch = Watch(learner, AlarmConfig(window=3, stop=[]))
    _, stop = walk(watch, learner, [step()] * 3 + FAULTS["kl"] * 3)
    assert stop is None
    assert watch.first == {"kl": 5}
    assert capsys.readouterr().err.count("alarm kl") == 1


def test_without_a_judge_it_goes_back_to_what_was_paid_best() -> None:
    learner: Any = Learner()
    watch = Watch(learner, CFG)
    rows = [step(objective__return=0.1 * n) for n in range(5)] + [step(objective__return=-1.0)]
    walk(watch, learner, [without_judge(row) for row in rows])
    assert watch.go_back() == 5


def test_what_it_keeps_goes_through_a_checkpoint() -> None:
    learner: Any = Learner()
    watch = Watch(learner, CFG)
    walk(watch, learner, [step(objective__judge=0.1 * n) for n in range(6)])
    again = Watch(learner, CFG)
    again.restore(watch.state())
    learner.at(-1.0)
    assert again.go_back() == 6
    assert learner.parameters[0].tolist() == [6.0, 6.0]
