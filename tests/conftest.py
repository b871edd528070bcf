"""Settings for all tests: one thread, no network, and one folder in which the tiny model is built once."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings

# Read when the libraries are first imported: no test may wait for a network.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_DATASETS_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

from pipeline.cli import main
from pipeline.config import load_config

settings.register_profile("shared machine", deadline=None)  # a busy machine misses any deadline
settings.load_profile("shared machine")

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the tiny model is built, once for all tests."""
    return tmp_path_factory.mktemp("models")


Align = Callable[..., tuple[int, str, str]]  # (exit code, standard output, standard error)


@pytest.fixture
def run_align(capsys: pytest.CaptureFixture[str]) -> Align:
    """Run `align` with some arguments; returns (exit code, standard output, standard error)."""

    def call(*arguments: str) -> tuple[int, str, str]:
        try:
            main(arguments)
            code = 0
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else 0
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


@pytest.fixture
def at_root(monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in the repository's root, as people do: the configs name their data relative to it."""
    monkeypatch.chdir(ROOT)
    return ROOT


@pytest.fixture(scope="session")
def smoke_run(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Path:
    """A finished run of configs/smoke.yaml, for tests that only look at one: copy it before you change it."""
    folder = tmp_path_factory.mktemp("runs") / "smoke"
    from pipeline.report.html import write_report
    from pipeline.stages.chain import run_all

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        settings = [f"run_dir={folder}", f"model.cache_dir={cache}", "logging.progress=false"]
        run_all(load_config("configs/smoke.yaml", settings))
    write_report(folder)
    return folder
