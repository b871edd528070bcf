"""Every config file in the repository loads."""

from pathlib import Path

import gymnasium
import pytest

from pipeline.agents import landmarks
from pipeline.config import Config, agent_file, load_agent, load_config
from pipeline.games import GAMES

ROOT = Path(__file__).parents[1]
# accelerate's own files aren't ours to parse.
FILES = sorted(path for path in (ROOT / "configs").rglob("*.yaml") if "accelerate" not in path.parts)
# A model's file is laid over a recipe: tests/test_recipes.py loads every pair.
RUNS = [path for path in FILES if not {"agents", "models"} & set(path.relative_to(ROOT).parts)]


def test_there_are_configs_to_check() -> None:
    assert {"quickstart.yaml", "smoke.yaml", "hh.yaml"} <= {path.name for path in RUNS}


@pytest.mark.parametrize("path", RUNS, ids=lambda path: str(path.relative_to(ROOT)))
def test_it_loads_and_its_files_exist(path: Path) -> None:
    config = load_config(path)
    assert isinstance(config, Config)
    assert config.run_dir == f"runs/{path.stem}"
    for section in (config.sft, config.reward, config.policy, config.evaluate):
        if section is None:
            continue
        source = section.data.source
        assert not source.startswith("data/") or (ROOT / source).is_file(), source


AGENT_FILES = sorted((ROOT / "configs" / "agents").glob("*.yaml"))


@pytest.mark.parametrize("path", AGENT_FILES, ids=lambda path: path.stem)
def test_an_agent_config_loads_and_its_environment_exists(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    algorithm, environment = path.stem.split("-", 1)
    for package in ("ALE-", "MinAtar-"):  # a name's slash is a dash in its file's
        environment = environment.replace(package, package.replace("-", "/"))
    assert agent_file(algorithm, environment) == path.relative_to(ROOT)
    config = load_agent(algorithm, environment)
    assert config.environment == environment
    landmarks.register(environment)
    assert environment in {*gymnasium.registry, *GAMES, "Maze-v0", "Taxi-v3"}
