"""What is asked next: where reward models disagree most, half at random, and what the scores of a run are."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from pipeline.collect.asking import asking, at_random, by_disagreement, ensemble_scores, mixed
from pipeline.collect.errors import CollectError
from pipeline.collect.records import Pair
from pipeline.evaluation.agreement import disagreement
from pipeline.evaluation.judges.progress import quiet
from pipeline.rundir import RunDir, RunError
from pipeline.stages.calibrate import as_answers
from pipeline.stages.inputs import load_backbone, open_run, read
from pipeline.stages.judges import own_judge
from pipeline.stages.reward_card import score_scale
from tests.collect.builders import pair, pairs
from tests.test_pipeline import align


def scored(pairs: Sequence[Pair]) -> Mapping[str, float]:
    return {f"pair-{number}": score for number, score in enumerate([0.1, 0.4, 0.2, 0.4, 0.0, 0.3])}


def test_most_disputed_first_and_equals_by_name() -> None:
    order = by_disagreement(scored)(pairs(6), [])
    assert order == ["pair-1", "pair-3", "pair-5", "pair-2", "pair-0", "pair-4"]


def test_the_mix_takes_turns_and_asks_nothing_twice() -> None:
    wanted, chance = by_disagreement(scored)(pairs(6), []), at_random(1)(pairs(6), [])
    order = mixed(by_disagreement(scored), at_random(1))(pairs(6), [])
    assert sorted(order) == sorted(chance)
    assert order[0] == wanted[0]
    assert order[1] == next(id for id in chance if id != order[0])
    assert order[2] == next(id for id in wanted if id not in order[:2])
    asked = set(order[:4])  # what was asked by chance is the beginning of the order by chance
    assert set(chance[:2]) <= asked


def test_disagreement_is_in_probabilities() -> None:
    """Members at ±3 nats: σ(3) − ½ = .4526. Sure of one side by 9 or by 15 nats, or all at 0, is no disagreement."""
    found = disagreement(np.array([[3.0, 9.0, 0.0], [-3.0, 15.0, 0.0]]))
    assert found == pytest.approx([0.4526, 0.0001, 0.0], abs=1e-4)


def test_a_strategy_there_isnt(tmp_path: Path) -> None:
    with pytest.raises(CollectError, match="only random, disagreement, mix"):
        asking("oldest", 0, tmp_path)


@pytest.fixture(scope="module")
def run(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    folder = tmp_path_factory.mktemp("asking") / "run"
    for stage in ("sft", "reward"):
        align(folder, cache, command=stage)
    return RunDir(folder)


def test_a_runs_reward_models_say_what_they_disagree_on(run: RunDir, at_root: Path) -> None:
    """std over the members of σ(d), d in logits; each pair is scored once."""
    config, _ = open_run(run.path)
    assert config.reward is not None
    asked = [pair(number) for number in range(5)]
    scores = ensemble_scores(run.path)
    found = scores(asked)
    backbone = load_backbone(config)
    row = read(config, config.reward.data, "preferences").rows[0]
    changed = type(row)(asked[2].prompt, asked[2].a.text, asked[2].b.text, 0.0, "", {})
    probabilities = []
    for name in ("reward", "judge"):
        scorer = own_judge(run, backbone, name, batch_size=4, progress=quiet)
        one, other = scorer.score(as_answers(backbone.chat, changed))
        probabilities.append(1 / (1 + np.exp(-(one - other) * score_scale(run, name))))
    assert found[asked[2].id] == pytest.approx(abs(probabilities[0] - probabilities[1]) / 2, abs=1e-6)
    assert len(set(found.values())) == 5
    (run.path / "reward" / "result.json").rename(run.path / "reward" / "moved.json")
    try:
        assert scores(asked) == found  # nothing is loaded again
        with pytest.raises(RunError):
            ensemble_scores(run.path)(asked)
    finally:
        (run.path / "reward" / "moved.json").rename(run.path / "reward" / "result.json")


def test_one_reward_model_has_nobody_to_disagree_with(run: RunDir, cache: Path, tmp_path: Path, at_root: Path) -> None:
    shutil.copytree(run.path / "sft", tmp_path / "run" / "sft")
    align(tmp_path / "run", cache, "reward.judge=0", command="reward")
    with pytest.raises(RunError, match="nobody to disagree with"):
        asking("mix", 0, tmp_path / "run")([pair(0)], [])
