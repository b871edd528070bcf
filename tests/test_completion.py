"""The Tab key: files, runs and settings, as the shell's script asks for them."""

from pathlib import Path

import pytest
import yaml

from pipeline.cli import completion
from pipeline.cli.app import main
from pipeline.config import Config, apply_overrides, load_config, parse_config

SHELLS = ("bash", "zsh", "fish")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder as people have it."""
    for name in (
        "mine.yaml",
        "configs/quickstart.yaml",
        "configs/smoke.yaml",
        "runs/ppo/config.yaml",
        "runs/notes.txt",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "elsewhere" / "old" / "sft").mkdir(parents=True)
    (tmp_path / "elsewhere" / "old" / "config.yaml").touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("", ["mine.yaml", "configs/quickstart.yaml", "configs/smoke.yaml"]),
        ("con", ["configs/quickstart.yaml", "configs/smoke.yaml"]),
        ("configs/q", ["configs/quickstart.yaml"]),
        ("elsewhere/", ["elsewhere/old/"]),
    ],
)
def test_configs(here: Path, typed: str, offered: list[str]) -> None:
    assert completion.configs(typed) == offered


@pytest.mark.parametrize(
    ("typed", "offered"), [("", ["runs/ppo"]), ("elsewhere/", ["elsewhere/old", "elsewhere/old/"])]
)
def test_runs(here: Path, typed: str, offered: list[str]) -> None:
    assert completion.runs(typed) == offered


def test_every_setting_that_is_offered_exists_and_none_is_missing(at_root: Path) -> None:
    """Each key, set to the value that it has, gives the same config."""
    config = load_config("configs/smoke.yaml")
    offered = completion.settings("")
    assert {"policy.kl_coef=", "model.name=", "seed=", "evaluate.data.source=", "lora.r="} <= set(offered)
    assert completion.settings("policy.kl_c") == ["policy.kl_coef="]
    assert not [key for key in offered if key.startswith("policy=")]
    tree = config.model_dump()
    for key in offered:
        path, value = key.rstrip("=").split("."), tree
        for name in path:
            value = value and value[name]  # a section that isn't set has no keys yet
        tree = apply_overrides(tree, [f"{key}{yaml.safe_dump(value)}"]) if value is not None else tree
    assert parse_config(tree) == config
    assert {key.partition(".")[0].rstrip("=") for key in offered} == set(Config.model_fields)


@pytest.mark.parametrize("shell", SHELLS)
def test_a_shells_script_is_printed_and_its_question_answered(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], shell: str
) -> None:
    monkeypatch.setenv("_ALIGN_COMPLETE", f"source_{shell}")
    with pytest.raises(SystemExit):
        main([])
    assert "_ALIGN_COMPLETE" in capsys.readouterr().out
    typed = {"COMP_WORDS": "align run configs/q", "COMP_CWORD": "2"}
    zsh_and_fish = {"_TYPER_COMPLETE_ARGS": "align run configs/q", "_TYPER_COMPLETE_FISH_ACTION": "get-args"}
    for name, value in {**typed, **zsh_and_fish, "_ALIGN_COMPLETE": f"complete_{shell}"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit):
        main([])
    assert "configs/quickstart.yaml" in capsys.readouterr().out


def test_roles_are_offered(here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for name, value in {
        "_ALIGN_COMPLETE": "complete_bash",
        "COMP_WORDS": "align export runs/ppo --role ",
        "COMP_CWORD": "4",
    }.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit):
        main([])
    assert capsys.readouterr().out.split() == ["policy", "sft"]
