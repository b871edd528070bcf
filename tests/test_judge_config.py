"""`evaluate.judges` refuses what it can't mean, in one sentence, and shows no secret while it does."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.config import Config, ConfigError, dump_config, load_config, parse_config
from tests.conftest import ROOT

MINIMAL: dict[str, Any] = {
    "model": {"name": "tiny"},
    **{name: {"data": {"source": f"{name}.jsonl"}} for name in ("sft", "reward", "policy", "evaluate")},
}
LLM = {"kind": "llm", "base_url": "http://localhost:8000/v1", "model": "m"}
CHECK = {"name": "a", "must": "x"}


def load(judges: Any, reward: dict[str, Any] | None = None, **evaluate: Any) -> Config:
    section = MINIMAL["evaluate"] | {"judges": judges} | evaluate
    return parse_config(MINIMAL | {"evaluate": section, "reward": MINIMAL["reward"] | (reward or {})})


def message(judges: Any, reward: dict[str, Any] | None = None, **evaluate: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        load(judges, reward, **evaluate)
    return str(caught.value)


@pytest.mark.parametrize(
    "judge",
    [
        {"kind": "reward_model", "run": "runs/other"},
        {"kind": "reward_model", "run": "runs/other", "adapter": "reward"},
        {"kind": "reward_model", "model": "owner/name"},
        LLM,
        LLM | {"api_key_env": "OPENAI_API_KEY", "temperature": None, "max_tokens": None, "requests_per_minute": 60.0},
        LLM | {"price_per_million_input": 0.5, "price_per_million_output": 1.5, "cache": "replies.jsonl"},
        {"kind": "llm_local"},
        {"kind": "llm_local", "model": "owner/name", "chat_template": "chatml", "tie": 0.1},
        {"kind": "rubric", "checks": [CHECK, {"name": "b", "must_not": "y", "weight": -2.0}]},
        {"kind": "rubric", "checks": [{"name": "b", "function": "package.module:Class.method"}]},
        {"kind": "length", "prefer": "shorter"},
        {"kind": "human"},
        {"kind": "human", "labels": "mine.labels.jsonl"},
    ],
)
def test_what_is_meant_is_kept(judge: dict[str, Any]) -> None:
    config = load({"x": judge})
    assert config.evaluate.judges["x"].model_dump(exclude_unset=True) == judge
    assert parse_config(yaml.safe_load(dump_config(config))) == config


def test_by_default_there_are_none() -> None:
    config = parse_config(MINIMAL)
    assert (config.evaluate.judges, config.evaluate.judge_pairs, config.reward.judges) == ({}, ["policy_vs_sft"], 1)


@pytest.mark.parametrize(
    ("judge", "expected"),
    [
        ({"kind": "reward_model"}, "x: give exactly one of run (a run folder) and model"),
        ({"kind": "reward_model", "run": "a", "model": "b"}, "x: give exactly one of run"),
        (LLM | {"base_url": "localhost:8000"}, "x: base_url must begin with http:// or https://"),
        (LLM | {"base_url": "http://a:b:c/v1"}, "x: base_url is no URL"),
        (LLM | {"price_per_million_input": 1.0}, "x: give both price_per_million_input and"),
        (LLM | {"modell": "m"}, "x.modell: unknown key; did you mean model?"),
        (LLM | {"temperature": -1.0}, "x.temperature: got -1.0"),
        ({"kind": "llm"}, "x.base_url: is required and missing"),
        ({"kind": "llm_local", "chat_template": "chatml"}, "x: sha256 and chat_template belong to model"),
        ({"kind": "rubric", "checks": []}, "x.checks: got []"),
        ({"kind": "rubric", "checks": [{"name": "a"}]}, "x.checks.0: give exactly one of must, must_not and function"),
        ({"kind": "rubric", "checks": [CHECK | {"must_not": "y"}]}, "x.checks.0: give exactly one of"),
        ({"kind": "rubric", "checks": [{"name": "a", "must": "("}]}, "x.checks.0: not a regular expression"),
        (
            {"kind": "rubric", "checks": [{"name": "a", "function": "module"}]},
            "x.checks.0: function is 'module:function'",
        ),
        ({"kind": "rubric", "checks": [CHECK, CHECK]}, "x: two checks have the same name"),
        ({"kind": "length", "prefer": "long"}, "x.prefer: got 'long'"),
        ({"kind": "lenght"}, "x: kind must be one of reward_model, ensemble, llm, llm_local, rubric, length, human"),
        ({"prefer": "longer"}, "x: kind must be one of"),
        ("length", "x: got 'length'"),
    ],
)
def test_what_makes_no_sense_is_one_sentence(judge: Any, expected: str) -> None:
    text = message({"x": judge})
    assert f"  evaluate.judges.{expected}" in text


@pytest.mark.parametrize("name", ["judge", "reward", "Judge", "a-b", "a.b", "1st", "_x", "ä", ""])
def test_names(name: str) -> None:
    assert f"judges: {name!r} can't be a judge's name" in message({name: {"kind": "length", "prefer": "longer"}})


def test_names_like_kinds_and_fields_are_fine() -> None:
    """And hints still are of the kind that is meant."""
    names = ("llm", "rubric", "checks", "model", "kind", "judge_2")
    assert set(load({name: {"kind": "length", "prefer": "longer"} for name in names}).evaluate.judges) == set(names)
    text = message({"llm": {"kind": "length", "preferr": "longer", "prefer": "longer"}})
    assert "evaluate.judges.llm.preferr: unknown key; did you mean prefer?" in text


@pytest.mark.parametrize(
    "judge",
    [
        LLM | {"base_url": "https://user:S3CRET@host/v1"},
        LLM | {"base_url": "https://host/v1?key=S3CRET"},
        LLM | {"api_key_env": "sk-S3CRET"},
        LLM | {"api_key": "sk-S3CRET"},
        {"kind": "lm", "api_key": "sk-S3CRET"},
    ],
)
def test_a_key_that_stands_in_a_config_is_refused_and_not_shown(judge: dict[str, Any]) -> None:
    assert "S3CRET" not in message({"x": judge})


@pytest.mark.parametrize(
    ("reward", "refused"),
    [({}, True), ({"judges": 1}, True), ({"judges": 2}, False), ({"judges": 2, "judge": 0.0}, True)],
)
def test_an_ensemble_needs_members(reward: dict[str, Any], refused: bool) -> None:
    judges = {"e": {"kind": "ensemble"}}
    if refused:
        assert "reward" in message(judges, reward)
        assert "input" not in message(judges, reward)
    else:
        assert load(judges, reward).reward.judge_names == ["judge", "judge_2"]


@pytest.mark.parametrize(
    ("pairs", "refused"),
    [
        (["policy_vs_sft", "sft_vs_policy", "best_of_n_vs_base"], False),
        (["policy_vs_policy"], True),
        (["policy_vs_reward"], True),
        (["policy"], True),
        (["policy_vs_sft", "policy_vs_sft"], True),
        ([], True),
    ],
)
def test_pairs(pairs: list[str], refused: bool) -> None:
    if refused:
        assert "judge_pairs" in message({}, judge_pairs=pairs)
    else:
        assert load({}, judge_pairs=pairs).evaluate.judge_pairs == pairs


def test_best_of_n_must_be_there_to_be_compared() -> None:
    assert "judge_pairs: 'policy_vs_best_of_n'" in message({}, judge_pairs=["policy_vs_best_of_n"], best_of=1)


def test_the_examples_in_the_documentation_load(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "evaluation.md").read_text(encoding="utf-8")
    quickstart = (ROOT / "configs" / "quickstart.yaml").read_text(encoding="utf-8")
    written, _, _ = quickstart.partition("\nevaluate:")
    documented = tmp_path / "documented.yaml"
    data = "  data: {source: data/quickstart/eval.jsonl}\n"
    loaded = []
    for block in page.split("```yaml\n")[1:]:
        example = block.split("```")[0].replace("evaluate:\n", f"evaluate:\n{data}")
        documented.write_text(written + "\n" + example, encoding="utf-8")
        loaded.append(load_config(documented, ["reward.judges=2"]).evaluate)
    assert [(len(one.systems), len(one.judges)) for one in loaded] == [(3, 0), (0, 8)]
    assert {judge.kind for judge in loaded[1].judges.values()} == {
        *("reward_model", "ensemble", "llm", "llm_local", "rubric", "length", "human")
    }
    uncommented = tmp_path / "uncommented.yaml"
    uncommented.write_text(re.sub(r"^  # (?=judge|  )", "  ", quickstart, flags=re.MULTILINE), encoding="utf-8")
    assert len(load_config(uncommented, ["reward.judges=3"]).evaluate.judges) == 5


def test_people_have_a_short_name() -> None:
    config = load_config(ROOT / "configs" / "quickstart.yaml", ["judge=human"])
    assert {name: judge.kind for name, judge in config.evaluate.judges.items()} == {"human": "human"}
    with pytest.raises(ConfigError, match="judge: unknown key"):
        load_config(ROOT / "configs" / "quickstart.yaml", ["judge=dog"])
