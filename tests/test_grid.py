"""Overrides that name several values: which vary, what the runs are called, and what is refused."""

from pathlib import Path

import pytest

from pipeline.config import ConfigError, load_grid
from pipeline.config.grid import folder, split_overrides, takes_list

SMOKE = "configs/smoke.yaml"


def test_every_combination_is_a_run_of_its_own(at_root: Path) -> None:
    grid = load_grid(SMOKE, ["policy.kl_coef=[0.02, 0.1]", "run_dir=runs/x", "policy.algorithm=[ppo,rloo]", "seed=3"])
    assert grid.root == Path("runs/x")
    assert grid.axes == {"policy.kl_coef": [0.02, 0.1], "policy.algorithm": ["ppo", "rloo"]}
    assert [point.name for point in grid.points] == [
        "policy.kl_coef=0.02,policy.algorithm=ppo",
        "policy.kl_coef=0.02,policy.algorithm=rloo",
        "policy.kl_coef=0.1,policy.algorithm=ppo",
        "policy.kl_coef=0.1,policy.algorithm=rloo",
    ]
    for point in grid.points:
        assert point.config.run_dir == f"runs/x/{point.name}"
        assert point.config.policy.kl_coef == point.settings["policy.kl_coef"]
        assert point.config.policy.algorithm == point.settings["policy.algorithm"]
        assert point.config.seed == 3


def test_the_default_folder_is_the_configs(at_root: Path) -> None:
    assert load_grid(SMOKE, ["seed=[0,1]"]).root == Path("runs/smoke")


@pytest.mark.parametrize("key", ["gates.skip", "policy.alarms.stop", "lora.targets", "lora.layers"])
def test_a_list_is_one_value_where_the_setting_takes_lists(key: str) -> None:
    assert takes_list(key)
    assert split_overrides([f"{key}=[a,b]"]) == ([f"{key}=[a,b]"], {})


@pytest.mark.parametrize(
    "key",
    ["policy.kl_coef", "seed", "policy.sampling.temperature", "evaluate.sampling.temperature", "sft.data.part"],
)
def test_a_list_is_several_values_elsewhere(key: str) -> None:
    assert not takes_list(key)
    assert split_overrides([f"{key}=[1,2]", "seed=5"]) == (["seed=5"], {key: [1, 2]})


def test_values_survive_the_way_back(at_root: Path) -> None:
    """Numbers that YAML 1.1 would take for text, words that it would take for something else, null."""
    grid = load_grid(SMOKE, ["policy.learning_rate=[1e-5, 3e-4]", "policy.target_kl=[null, 0.1]"])
    assert [point.config.policy.learning_rate for point in grid.points[::2]] == [1e-5, 3e-4]
    assert [point.config.policy.target_kl for point in grid.points[:2]] == [None, 0.1]
    assert grid.points[0].name == "policy.learning_rate=1e-05,policy.target_kl=null"
    (only,) = load_grid(SMOKE, ['evaluate.data.part=["0-50"]']).points
    assert only.config.evaluate.data.part == "0-50"


def test_names_are_names_of_folders() -> None:
    assert folder({"policy.data.source": "data/a b.jsonl"}) == "policy.data.source=data_a_b.jsonl"
    assert "/" not in folder({"a": "../../etc", "b": {"c": 1}})


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ([], "nothing varies"),
        (["policy.kl_coef=0.1", "gates.skip=[sft_ends]"], "nothing varies"),
        (["policy.kl_coef=[]"], "at least one"),
        (["policy.kl_coef=[0.1,0.2,0.1]"], "different values"),
        (["policy.kl_coef=[0.1]", "policy.kl_coef=[0.2]"], "twice"),
        (["run_dir=[a,b]"], "by themselves"),
        (["policy.kl_coeff=[0.1,0.2]"], "did you mean kl_coef"),
        (["policy.kl_coef=[0.1,-2]"], "policy.kl_coef: got -2"),
        (["policy.kl_coef=[2020-01-01]"], "policy.kl_coef: got '2020-01-01'"),
        (["sft.data.source=[a/b,a b]"], "would share the folder"),
        (["policy"], "must look like section.key=value"),
    ],
)
def test_what_makes_no_sweep_is_one_sentence(at_root: Path, overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        load_grid(SMOKE, overrides)
    assert message in str(error.value)


def test_a_file_of_settings_belongs_to_every_run(at_root: Path, tmp_path: Path) -> None:
    above = tmp_path / "warm.yaml"
    above.write_text("policy: {sampling: {temperature: 0.9}}\n", encoding="utf-8")
    grid = load_grid(SMOKE, [str(above), "policy.algorithm=[ppo,rloo]"])
    assert grid.root == Path("runs/smoke-warm")
    assert {point.config.policy.sampling.temperature for point in grid.points} == {0.9}
    assert [point.config.policy.algorithm for point in grid.points] == ["ppo", "rloo"]
