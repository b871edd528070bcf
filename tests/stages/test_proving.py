"""The longest batch runs first, leaves no trace, and what doesn't fit is one sentence."""

from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.config import parse_config
from pipeline.lm.policy import LanguagePolicy
from pipeline.rundir import RunDir, RunError
from pipeline.stages import proving
from tests.stages.builders import config, train
from tests.stages.test_fit import EXAMPLES, task
from tests.stages.test_fit import config as fit_config


def test_it_changes_nothing_that_is_learned(before: RunDir, tmp_path: Path, model: str) -> None:
    rows = []
    for prove in ("never", "always"):
        cfg = config(tmp_path, model, missing_eos="penalty")
        cfg = parse_config(cfg.model_dump() | {"gates": {"prove_memory": prove}})
        _, found = train(before, cfg)
        rows.append([{k: v for k, v in row.items() if not k.startswith("time/")} for row in found])
    assert rows[0] == rows[1]


def test_completions_of_full_length_are_proved(
    before: RunDir, tmp_path: Path, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    whole = LanguagePolicy.generate

    def generate(self: LanguagePolicy, prompts: Any, **options: Any) -> Any:
        rollout = whole(self, prompts, **options)
        seen.append(int(rollout.lengths.min()))
        return rollout

    monkeypatch.setattr(LanguagePolicy, "generate", generate)
    cfg = config(tmp_path, model, missing_eos="penalty", sampling={"max_new_tokens": 9})
    train(before, parse_config(cfg.model_dump() | {"gates": {"prove_memory": "always"}}))
    assert seen[0] == 9
    assert len(seen) == 3


def test_the_longest_examples_are_taken_and_their_gradient_forgotten() -> None:
    weight = torch.nn.Parameter(torch.zeros(()))
    seen: list[Any] = []
    plan = task(weight)
    loss = plan.loss

    def watched(batch: Any) -> torch.Tensor:
        seen.extend(batch)
        return loss(batch)

    proving.prove_fit("sft", task(weight, loss=watched), [weight], fit_config(microbatch_size=2))
    assert seen == sorted(EXAMPLES, key=lambda example: -example[1])[:2]
    assert weight.grad is None or weight.grad == 0


def test_what_does_not_fit_is_one_sentence() -> None:
    said = r"reward: the longest batch doesn't fit.*tried 9 GiB.*reward.microbatch_size"
    with pytest.raises(RunError, match=said), proving.fits("reward"):
        raise torch.OutOfMemoryError("tried 9 GiB\nstack")


def test_random_numbers_stay_where_they_were() -> None:
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    with proving.fits("sft"):
        torch.rand(100)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize(("setting", "on_a_cpu"), [("auto", False), ("always", True), ("never", False)])
def test_when(setting: str, on_a_cpu: bool) -> None:
    class Backbone:
        device = torch.device("cpu")

    backbone: Any = Backbone()
    assert proving.wanted(backbone, setting) == on_a_cpu
