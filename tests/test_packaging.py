"""The wheel: everything in it, nothing else, and a start from an empty folder."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from pipeline.starter import FILES, StarterError, copy_into, files

ROOT = Path(__file__).parents[1]
SOURCES = ("pipeline", "configs", "data", "pyproject.toml", "setup.py", "README.md", "LICENSE")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy of the sources with the build tools that are installed: without a network, and leaving nothing
    behind."""
    pytest.importorskip("build")
    place = tmp_path_factory.mktemp("wheel")
    for name in SOURCES:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, place / name)
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(place / "dist"), str(place)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return next((place / "dist").glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel: Path) -> Path:
    """What an installer makes of it."""
    place = wheel.parent / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(place)
    return place


def align(installed: Path, folder: Path, *arguments: str) -> str:
    """`align` from the wheel alone, in a folder that holds no source."""
    command = [
        sys.executable,
        "-c",
        "import pipeline.cli, sys; print(pipeline.__file__); pipeline.cli.main()",
        *arguments,
    ]
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    where, _, said = done.stdout.partition("\n")
    assert Path(where).is_relative_to(installed)
    return said


def test_everything_is_in_it(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    code = {str(path.relative_to(ROOT)) for path in (ROOT / "pipeline").rglob("*.py")}
    templates = {str(path.relative_to(ROOT)) for path in (ROOT / "pipeline/report/templates").iterdir()}
    page = ROOT / "pipeline/collect/page"
    templates |= {str(path.relative_to(ROOT)) for path in page.rglob("*") if path.is_file()}
    starters = {f"pipeline/shipped/{path}" for pattern in FILES for path in map(str, _below(pattern))}
    assert code | templates | starters | {"pipeline/py.typed"} == {n for n in names if ".dist-info/" not in n}
    assert any(name.endswith("licenses/LICENSE") for name in names)


def _below(pattern: str) -> list[Path]:
    found = [path.relative_to(ROOT) for path in ROOT.glob(pattern)]
    assert found, pattern
    return found


def test_the_index_would_take_it(wheel: Path) -> None:
    pytest.importorskip("twine")
    command = [sys.executable, "-m", "twine", "check", "--strict", *map(str, wheel.parent.glob("*.*"))]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert done.stdout.count("PASSED") == 2  # the wheel, and the sources that it was made from


def test_a_start_from_an_empty_folder(installed: Path, tmp_path: Path) -> None:
    assert "init" in align(installed, tmp_path, "--help")
    assert "align run configs/quickstart.yaml" in align(installed, tmp_path, "init")
    assert "run_dir: runs/smoke" in align(installed, tmp_path, "config", "configs/smoke.yaml")
    for name in ("configs/quickstart.yaml", "data/quickstart/sft.jsonl", "configs/agents/ppo-CartPole-v1.yaml"):
        assert (tmp_path / name).read_bytes() == (ROOT / name).read_bytes()


def test_tuned_agents_are_found_without_a_copy(installed: Path, tmp_path: Path) -> None:
    code = "from pipeline.config import load_agent; print(load_agent('ppo', 'CartPole-v1').model_dump_json())"
    told = [
        subprocess.run(
            [sys.executable, "-c", code], cwd=place, env={**os.environ, "PYTHONPATH": str(path)}, capture_output=True
        ).stdout
        for place, path in ((tmp_path, installed), (ROOT, ROOT))
    ]
    assert told[0] == told[1] != b""


# ---- align init ---------------------------------------------------------------------------------------------


def test_what_is_yours_stays_yours(tmp_path: Path) -> None:
    everything = list(files())
    assert copy_into(tmp_path) == everything
    assert copy_into(tmp_path) == []
    mine = tmp_path / "configs" / "quickstart.yaml"
    mine.write_text("seed: 7\n")
    (tmp_path / "data" / "README.md").unlink()
    with pytest.raises(StarterError, match=r"quickstart\.yaml would be overwritten"):
        copy_into(tmp_path)
    assert mine.read_text() == "seed: 7\n"
    assert not (tmp_path / "data" / "README.md").exists()
    assert set(map(str, copy_into(tmp_path, force=True))) == {"configs/quickstart.yaml", "data/README.md"}


def test_a_config_that_init_would_copy_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipeline.config import ConfigError, load_config

    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="`align init` copies it here"):
        load_config("configs/quickstart.yaml")
    with pytest.raises(ConfigError, match=r"no config file at mine\.yaml$"):
        load_config("mine.yaml")
