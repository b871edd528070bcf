"""Kill real processes: what a run leaves in the end doesn't depend on how often it was interrupted."""

import json
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from pipeline.rundir import STAGES, read_jsonl

ROOT = Path(__file__).parents[1]
STEPS = 16
# Every state that a checkpoint must hold is in use: dropout's random numbers, boundary states that are kept over
# epochs, the steered price of KL, remembered phrases.
SETTINGS = (
    "configs/smoke.yaml",
    "logging.progress=false",
    "checkpoint.seconds=0",
    "lora.layers=upper",
    "lora.dropout=0.1",
    "sft.epochs=2",
    "sft.microbatch_size=3",
    "reward.epochs=2",
    "reward.batch_size=8",
    f"policy.steps={STEPS}",
    "policy.kl_target=0.5",
    "policy.stock_phrase_coef=0.1",
)


def arguments(folder: Path, cache: Path, *extra: str) -> list[str]:
    return ["run", *SETTINGS, f"run_dir={folder}", f"model.cache_dir={cache}", *extra]


def killed(kills: int, arguments: Sequence[str], seed: int = 0) -> list[str]:
    """Where the processes were killed, before the last one came to its end."""
    command = [sys.executable, "-m", "tests.killing", str(seed), str(kills), *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)  # type: ignore[no-any-return]


def without_times(row: dict[str, Any]) -> dict[str, Any]:
    """A row of metrics, or a result's, without what is measured in seconds and bytes."""
    return {key: value for key, value in row.items() if not key.startswith(("time/", "seconds", "peak_"))}


def contents(folder: Path) -> dict[str, Any]:
    """All that a run leaves, but for times: files by their bytes, figures by their values."""
    found: dict[str, Any] = {}
    for stage in STAGES:
        for path in sorted((folder / stage).rglob("*")):
            name = str(path.relative_to(folder))
            if path.name == "metrics.jsonl":
                found[name] = [without_times(row) for row in read_jsonl(path)]
            elif path.name == "result.json":
                result = without_times(json.loads(path.read_text(encoding="utf-8")))
                found[name] = result | {"metrics": without_times(result["metrics"])}
            elif path.is_file():
                found[name] = path.read_bytes()
    return found


@pytest.fixture(scope="module")
def first(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that nothing interrupted."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    assert killed(0, arguments(folder, cache)) == []
    return folder


@pytest.fixture(scope="module")
def whole(first: Path) -> dict[str, Any]:
    """What it left."""
    found = contents(first)
    assert {f"{stage}/result.json" for stage in STAGES} <= set(found)
    return found


def test_killed_at_random_moments_it_ends_with_the_same_bits(
    whole: dict[str, Any], cache: Path, tmp_path: Path
) -> None:
    points = killed(10, arguments(tmp_path / "run", cache))
    stages = Counter(point.partition(",")[0] for point in points)
    assert sum(stages[stage] for stage in STAGES) >= 20
    assert all(stages[stage] for stage in STAGES)
    assert any("spoilt" in point for point in points)
    assert contents(tmp_path / "run") == whole


@pytest.mark.slow
def test_whole_models_end_with_the_same_bits_too(cache: Path, tmp_path: Path) -> None:
    """With `lora: null` a checkpoint holds every weight of what learns."""
    settings = ("lora=null", "policy.steps=3", "sft.learning_rate=1e-3", "evaluate.data.limit=4")
    assert killed(0, arguments(tmp_path / "whole", cache, *settings)) == []
    points = killed(1, arguments(tmp_path / "killed", cache, *settings))
    assert {point.partition(",")[0] for point in points} >= {"sft", "reward", "policy"}
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")


@pytest.fixture
def halfway(whole: dict[str, Any], first: Path, tmp_path: Path) -> Path:
    """A run folder whose next stage is the policy's."""
    folder = tmp_path / "run"
    for stage in ("sft", "reward"):
        shutil.copytree(first / stage, folder / stage)
    return folder


def test_asked_to_stop_it_keeps_its_step_and_goes_on(whole: dict[str, Any], halfway: Path, cache: Path) -> None:
    """No checkpoint is due, so the only one is the one that Ctrl-C asks for."""
    command = [sys.executable, "-m", "pipeline.cli", *arguments(halfway, cache, "checkpoint.seconds=1e6")]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    while not (halfway / "policy" / "metrics.jsonl").is_file():
        assert process.poll() is None
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "run the same command to go on" in " ".join(told.split())
    assert "Traceback" not in told
    assert [path.name for path in (halfway / "policy" / "checkpoints").iterdir()] == ["000001-policy"]
    assert len(read_jsonl(halfway / "policy" / "metrics.jsonl")) < STEPS
    assert killed(0, command[3:]) == []
    assert contents(halfway) == whole


def test_a_full_disk_ends_cleanly_and_resumably(whole: dict[str, Any], halfway: Path, cache: Path) -> None:
    """A limit on the size of files stands for the disk: a checkpoint with its optimiser doesn't fit."""
    command = [sys.executable, "-m", "pipeline.cli", *arguments(halfway, cache)]
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))  # noqa: E731
    done = subprocess.run(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, check=False, preexec_fn=limit)
    assert done.returncode == 2
    assert "no checkpoint could be written" in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
    assert killed(0, command[3:]) == []
    assert contents(halfway) == whole
