"""The configuration refuses what it can't mean, says what it wants, and nothing else ever comes out of it."""

import contextlib
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from pipeline.config import Config, ConfigError, apply_overrides, dump_config, load_config, parse_config

ROOT = Path(__file__).parents[1]

MINIMAL = """\
model: {name: tiny}
sft: {data: {source: sft.jsonl}}
reward: {data: {source: pairs.jsonl}}
policy: {data: {source: prompts.jsonl}}
evaluate: {data: {source: eval.jsonl}}
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(MINIMAL, encoding="utf-8")
    return path


def message(path: Path, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(path, overrides)
    return str(caught.value)


# ---- what is refused, and how -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("policy.lerning_rate=1e-4", "policy.lerning_rate: unknown key; did you mean learning_rate?"),
        ("polcy.steps=1", "polcy: unknown key; did you mean policy?"),
        ("policy.sampling.temprature=1.0", "policy.sampling.temprature: unknown key; did you mean temperature?"),
        ("evaluate.sampling.temprature=1.0", "evaluate.sampling.temprature: unknown key; did you mean temperature?"),
        ("sft.data.sorce=a.jsonl", "sft.data.sorce: unknown key; did you mean source?"),
        ("lora.zzz=1", "lora.zzz: unknown key; known here: r, alpha, dropout, targets"),
    ],
)
def test_an_unknown_key_names_the_nearest(path: Path, override: str, expected: str) -> None:
    assert expected in message(path, override)


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("policy.algorithm=pppo", ["policy.algorithm: got 'pppo'", "'ppo'", "'rloo'", "'dr_grpo'"]),
        ("policy.steps=0", ["policy.steps: got 0", "greater than 0"]),
        ("policy.steps=1.5", ["policy.steps: got 1.5", "integer"]),
        ("policy.steps=many", ["policy.steps: got 'many'", "integer"]),
        ("policy.gamma=1.1", ["policy.gamma: got 1.1", "less than or equal to 1"]),
        ("policy.kl_coef=-0.1", ["policy.kl_coef: got -0.1", "greater than or equal to 0"]),
        ("reward.judge=1", ["reward.judge: got 1", "less than 1"]),
        ("model.name=7", ["model.name: got 7", "string"]),
        ("seed=-1", ["seed: got -1", "greater than or equal to 0"]),
        ("policy.sampling.temperature=0", ["policy.sampling.temperature: got 0", "greater than 0"]),
        ("sft.data.part=80-20", ["sft.data", "'LOW-HIGH' in percent", "'80-20'"]),
        ("sft.data.part=0-101", ["sft.data", "'0-101'"]),
        ("sft=null", ["sft: got None"]),
    ],
)
def test_a_wrong_value_names_field_value_and_what_is_allowed(path: Path, override: str, parts: list[str]) -> None:
    text = message(path, override)
    assert not [part for part in parts if part not in text], text


@pytest.mark.parametrize("value", [".nan", ".inf", "-.inf"])
@pytest.mark.parametrize("field", ["missing_eos_value", "learning_rate", "kl_coef", "sampling.temperature"])
def test_numbers_are_finite(path: Path, field: str, value: str) -> None:
    assert f"policy.{field}: got" in message(path, f"policy.{field}={value}")


def test_every_problem_is_told_at_once(path: Path) -> None:
    text = message(path, "seed=-1", "policy.stepz=3", "lora.r=0")
    assert len(text.splitlines()) == 4  # the file, then one line each
    assert all(field in text for field in ("seed", "policy.stepz", "lora.r"))


def test_a_missing_section_or_field_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("model: {}\n", encoding="utf-8")
    text = message(path)
    for field in ("model.name", "sft", "policy", "evaluate"):
        assert f"{field}: is required and missing" in text


def test_a_missing_reward_section_is_named_where_it_would_pay(tmp_path: Path) -> None:
    tree = yaml.safe_load((ROOT / "configs" / "smoke.yaml").read_text(encoding="utf-8"))
    del tree["reward"]
    path = tmp_path / "a.yaml"
    path.write_text(yaml.safe_dump(tree), encoding="utf-8")
    assert "reward: is missing, and policy.rewards.reward is the run's own reward model" in message(path)


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["policy.algorithm=rloo", "policy.group_size=1"], "group_size must be ≥ 2 for rloo, got 1"),
        (["policy.algorithm=grpo", "policy.group_size=1"], "group_size must be ≥ 2 for grpo, got 1"),
        (["policy.algorithm=dr_grpo", "policy.group_size=1"], "group_size must be ≥ 2 for dr_grpo, got 1"),
        (["policy.algorithm=reinforce", "policy.epochs=2"], "epochs must be 1 for reinforce"),
        (["policy.kl_target=6.0", "policy.kl_in=loss"], "kl_target adapts the price in the reward"),
    ],
)
def test_combinations_that_make_no_sense_are_refused(path: Path, overrides: list[str], expected: str) -> None:
    assert expected in message(path, *overrides)


@pytest.mark.parametrize(
    "overrides",
    [
        ["policy.algorithm=ppo", "policy.group_size=1", "policy.epochs=4"],
        ["policy.algorithm=reinforce", "policy.group_size=1"],
        ["policy.algorithm=rloo", "policy.group_size=2", "policy.epochs=2"],
        ["policy.kl_target=6.0"],
        ["policy.kl_in=loss"],
    ],
)
def test_the_neighbours_of_refused_combinations_are_fine(path: Path, overrides: list[str]) -> None:
    assert isinstance(load_config(path, overrides), Config)


# ---- YAML ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"), [("3e-4", 3e-4), ("1E-5", 1e-5), ("5.e-6", 5e-6), (".5", 0.5), ("2", 2.0), ("1e+1", 10.0)]
)
def test_learning_rates_are_numbers_however_they_are_written(path: Path, text: str, value: float) -> None:
    assert load_config(path, [f"policy.learning_rate={text}"]).policy.learning_rate == value


@pytest.mark.parametrize("text", ["seed: 1\nseed: 2\n", "lora: {r: 4, r: 8}\n"])
def test_a_key_that_stands_twice_is_an_error(path: Path, text: str) -> None:
    path.write_text(MINIMAL + text, encoding="utf-8")
    assert "stands twice" in message(path)


@pytest.mark.parametrize("text", ["", "- a\n- b\n", "just text\n", "a: [1\n", "a: b: c\n", "\x00", "!!python/none x\n"])
def test_a_file_that_is_no_mapping_is_an_error_that_names_it(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
    assert "small.yaml" in message(path)


def test_a_file_that_is_no_text_is_an_error(path: Path) -> None:
    path.write_bytes(b"\xff\xfe\x00")
    assert "can't be read as UTF-8" in message(path)


def test_a_missing_file_suggests_its_neighbours(at_root: Path) -> None:
    assert "did you mean configs/quickstart.yaml" in message(Path("configs/quikstart.yaml"))
    with pytest.raises(ConfigError, match="no config file at nowhere"):
        load_config("nowhere.yml")


def test_yaml_cant_build_objects(path: Path) -> None:
    path.write_text(MINIMAL + "run_dir: !!python/object/apply:os.getcwd []\n", encoding="utf-8")
    assert "not valid YAML" in message(path)


# ---- overrides ----------------------------------------------------------------------------------------------


def test_overrides_reach_every_depth_and_read_yaml(path: Path) -> None:
    overrides = [
        "seed=3",
        "run_dir=runs/x=y",
        "lora.targets=[q_proj, v_proj]",
        "policy.sampling.max_new_tokens=7",
        "evaluate.sampling={temperature: 0.5}",
        "policy.value_clip=null",
        "sft.data.columns.prompt=question",
        "logging.progress=false",
    ]
    config = load_config(path, overrides)
    assert (config.seed, config.run_dir, config.lora.targets) == (3, "runs/x=y", ["q_proj", "v_proj"])
    assert config.policy.sampling.max_new_tokens == 7
    assert config.evaluate.sampling is not None
    assert config.evaluate.sampling.temperature == 0.5
    assert config.policy.value_clip is None
    assert config.sft.data.columns == {"prompt": "question"}
    assert config.logging.progress is False


def test_the_last_override_wins_and_the_tree_is_left_alone() -> None:
    tree = {"a": {"b": 1}}
    assert apply_overrides(tree, ["a.b=2", "a.b=3", "a.c.d=4"]) == {"a": {"b": 3, "c": {"d": 4}}}
    assert tree == {"a": {"b": 1}}


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("policy.steps", "must look like section.key=value"),
        ("=3", "must look like section.key=value"),
        ("model.name.x=3", "'name' is a value, not a section"),
        ("seed=[1", "not valid YAML"),
    ],
)
def test_a_malformed_override_is_quoted(path: Path, override: str, expected: str) -> None:
    text = message(path, override)
    assert repr(override) in text
    assert expected in text


# ---- the object ---------------------------------------------------------------------------------------------


def test_the_run_folder_is_named_after_the_file(path: Path) -> None:
    assert load_config(path).run_dir == "runs/small"


def test_a_file_among_the_overrides_is_laid_over_in_its_turn(path: Path, tmp_path: Path) -> None:
    """Sections key by key, lists as a whole; what stands later wins."""
    above = tmp_path / "larger.yaml"
    above.write_text("model: {dtype: bfloat16}\npolicy: {steps: 7, sampling: {temperature: 0.9}}\n", encoding="utf-8")
    plain = load_config(path, ["policy.sampling.max_new_tokens=9"])
    found = load_config(path, ["policy.sampling.max_new_tokens=9", "policy.steps=5", str(above), "seed=3"])
    assert (found.policy.steps, found.policy.sampling.temperature, found.model.dtype) == (7, 0.9, "bfloat16")
    assert (found.policy.sampling.max_new_tokens, found.model.name, found.seed) == (9, plain.model.name, 3)
    assert found.run_dir == f"runs/{path.stem}-larger"
    assert load_config(path, [str(above), "policy.steps=5"]).policy.steps == 5
    assert load_config(path, [str(above), "run_dir=here"]).run_dir == "here"


def test_what_is_wrong_in_a_file_among_the_overrides_is_told(path: Path, tmp_path: Path) -> None:
    above = tmp_path / "larger.yaml"
    above.write_text("policy: {step: 7}\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"larger\.yaml:\n  policy\.step: unknown key; did you mean steps\?"):
        load_config(path, [str(above)])
    with pytest.raises(ConfigError, match="no config file at"):
        load_config(path, [str(tmp_path / "smaller.yaml")])


def test_a_config_is_frozen_at_every_depth(path: Path) -> None:
    config: Any = load_config(path)
    for section, name in ((config, "seed"), (config.policy, "steps"), (config.policy.sampling, "temperature")):
        with pytest.raises(ValidationError, match="frozen"):
            setattr(section, name, 1)


def reload(config: Config, folder: Path) -> Config:
    path = folder / "dumped.yaml"
    path.write_text(dump_config(config), encoding="utf-8")
    return load_config(path)


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["policy.learning_rate=1e-7", "policy.value_clip=null", "lora.targets=[q_proj]"],
        ["run_dir='1e5'"],  # a name that looks like a number
        ["sft.data.subset='08'"],
        ["sft.data.system='line one\n\n  Grüße: [x] # no comment'"],
    ],
)
def test_dump_and_load_round_trip(path: Path, tmp_path: Path, overrides: list[str]) -> None:
    config = load_config(path, overrides)
    assert reload(config, tmp_path) == config


def fields(tree: dict[str, Any], prefix: str = "") -> list[str]:
    found = []
    for name, value in tree.items():
        found.append(prefix + name)
        if isinstance(value, dict):
            found += fields(value, f"{prefix}{name}.")
    return found


KEYS = fields(parse_config(yaml.safe_load(MINIMAL)).model_dump())
PLAIN_BITS = [
    "",
    "~",
    "{}",
    "[]",
    "1",
    "-1",
    "0",
    "1e400",
    ".nan",
    "true",
    "9" * 5000,
    "ppo",
    "cpu",
    "'0-50'",
    "[q_proj]",
]
ODD_BITS = [
    "a: b",
    "&a [*a]",
    "{[1]: 2}",
    "{1: 2}",
    "2001-99-99",
    "? x",
    "'\\0'",
    "0x_",
    "0b_",
    "1:60",
    "<<: 1",
    "=",
    "\ud800",
]
TAG_BITS = [
    "!!x y",
    "!!int ''",
    "!!float x",
    "!!bool maybe",
    "!!timestamp x",
    "!!binary é",
    "!!set {a, b}",
    "!!map [1]",
]
YAML_BITS = st.sampled_from([*PLAIN_BITS, *ODD_BITS, *TAG_BITS])
VALUES = st.one_of(YAML_BITS, st.text(max_size=12), st.integers().map(str), st.floats().map(repr))
NAMES = st.one_of(st.sampled_from(KEYS), st.text(max_size=12), st.sampled_from(KEYS).map(lambda key: key + ".x"))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.one_of(st.builds("{}={}".format, NAMES, VALUES), st.text(max_size=20)), max_size=3))
def test_whatever_is_typed_gives_a_config_or_a_config_error(path: Path, overrides: list[str]) -> None:
    with contextlib.suppress(ConfigError):
        assert isinstance(load_config(path, overrides), Config)


@pytest.mark.parametrize("value", ["!!int ''", "!!float ''", "!!bool maybe", "!!timestamp x"])
def test_yaml_tags_that_dont_fit_are_config_errors_too(path: Path, value: str) -> None:
    assert "not valid YAML" in message(path, f"seed={value}")


# ---- what is rewarded ---------------------------------------------------------------------------------------


def test_without_a_word_the_run_s_own_reward_model_is_all_that_pays() -> None:
    rewards = load_config(ROOT / "configs" / "smoke.yaml").policy.rewards
    assert {name: term.model_dump() for name, term in rewards.items()} == {
        "reward": {"weight": 1.0, "function": None, "model": "reward"}
    }


@pytest.mark.parametrize(
    ("rewards", "why"),
    [
        ("{}", "policy.rewards"),
        ("{x: {}}", "give exactly one of function"),
        ("{x: {model: reward, function: 'a:b'}}", "give exactly one of function"),
        ("{x: {function: 'nocolon'}}", "function is 'module:function'"),
        ("{'no spaces': {model: reward}}", "can't be a term's name"),
        ("{x: {model: reward, weight: 0}}", "no term has a weight"),
        ("{x: {model: reward, wieght: 1}}", "did you mean weight"),
    ],
)
def test_rewards_that_make_no_sense_are_refused(rewards: str, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        load_config(ROOT / "configs" / "smoke.yaml", [f"policy.rewards={rewards}"])
