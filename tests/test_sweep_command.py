"""`align sweep`: what doesn't vary is done once, what was interrupted goes on, a failure leaves the others alone."""

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from pipeline.cli import main
from pipeline.rundir import STAGES, RunDir, read_jsonl
from pipeline.stages import chain
from tests.conftest import ROOT, Align
from tests.test_resume import contents

VALUES = "policy.kl_coef=[0.02,0.5]"
FIRST, SECOND = "policy.kl_coef=0.02", "policy.kl_coef=0.5"


def arguments(folder: Path, cache: Path, *extra: str) -> list[str]:
    settings = (f"run_dir={folder}", f"model.cache_dir={cache}", "logging.progress=false", "policy.steps=6")
    return ["sweep", "configs/smoke.yaml", *settings, "policy.learning_rate=0.01", *(extra or (VALUES,))]


def call(*command: str) -> int:
    """The exit code of `align …` in the repository's root."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        try:
            main(command)
        except SystemExit as stop:
            return int(stop.code or 0)
    return 0


@contextmanager
def counting() -> Iterator[list[str]]:
    """Every stage that is run in the block, as "folder stage"."""
    done: list[str] = []
    real = chain.run_stage

    def counted(config: Any, run_dir: RunDir, stage: str, *rest: Any, **options: Any) -> Any:
        done.append(f"{run_dir.path.name} {stage}")
        return real(config, run_dir, stage, *rest, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chain, "run_stage", counted)
        yield done


@pytest.fixture(scope="module")
def swept(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A finished sweep and the stages that it ran."""
    folder = tmp_path_factory.mktemp("sweep") / "root"
    with counting() as done:
        assert call(*arguments(folder, cache)) == 0
    return folder, done


@pytest.fixture(scope="module")
def first(swept: tuple[Path, list[str]]) -> Path:
    """Its folder; tests that change it work on a copy."""
    return swept[0]


@pytest.fixture
def copy(first: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(first, tmp_path / "root"))


@pytest.fixture
def worked() -> Iterator[list[str]]:
    with counting() as done:
        yield done


def account(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "sweep.json").read_text(encoding="utf-8"))  # type: ignore[no-any-return]


def test_sft_and_reward_are_trained_once(swept: tuple[Path, list[str]]) -> None:
    assert swept[1] == [f"{FIRST} {stage}" for stage in STAGES] + [f"{SECOND} {stage}" for stage in STAGES[2:]]


def test_shared_stages_are_the_same_files_and_the_others_are_not(first: Path) -> None:
    for stage in ("sft", "reward"):
        one, two = (contents_of(first / run / stage) for run in (FIRST, SECOND))
        assert one == two
        assert "result.json" in one
    assert RunDir(first / FIRST).require("policy").fingerprint != RunDir(first / SECOND).require("policy").fingerprint
    kl = [read_jsonl(first / run / "policy" / "metrics.jsonl")[-1]["objective/kl"] for run in (FIRST, SECOND)]
    assert kl[0] != kl[1]
    assert not list(first.glob("*/.*"))


def contents_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_what_is_left(first: Path) -> None:
    found = account(first)
    assert found["swept"] == {"policy.kl_coef": [0.02, 0.5]}
    assert [run["run"] for run in found["runs"]] == [FIRST, SECOND]
    assert [run["shared"] for run in found["runs"]] == [{}, {"sft": FIRST, "reward": FIRST}]
    for run in found["runs"]:
        metrics = RunDir(first / run["run"]).require("evaluate").metrics
        assert run["figures"]["evaluate.kl"] == metrics["kl"]
        assert run["figures"]["evaluate.win_rate.policy_vs_sft"] == metrics["win_rate.policy_vs_sft"]
        assert (first / run["run"] / "report.html").is_file()
    judged = {run["run"]: run["figures"]["evaluate.judge_score.policy"] for run in found["runs"]}
    assert found["told_by"] == "judge"
    assert found["best"]["run"] == max(judged, key=lambda name: judged[name])
    assert found["best"]["inside"] is False
    assert found["curve"]["points"] > 4
    assert (first / "frontier.html").is_file()
    assert (first / "frontier.png").is_file()


def test_a_second_call_does_nothing(copy: Path, cache: Path, worked: list[str]) -> None:
    before, left = times(copy), contents_of(copy)
    assert call(*arguments(copy, cache)) == 0
    assert worked == []
    assert times(copy) == before
    now = contents_of(copy)
    assert set(now) == set(left)
    for name in ("sweep.json", f"{FIRST}/report.html"):
        assert now[name] == left[name]


def times(root: Path) -> dict[str, int]:
    """When each file of each stage was written."""
    files = (path for stage in STAGES for path in root.glob(f"*/{stage}/**/*"))
    return {str(path.relative_to(root)): path.stat().st_mtime_ns for path in files}


def test_one_value_more_is_one_run_more(copy: Path, cache: Path, worked: list[str]) -> None:
    assert call(*arguments(copy, cache, "policy.kl_coef=[0.1,0.5]")) == 0
    assert worked == [f"policy.kl_coef=0.1 {stage}" for stage in STAGES[2:]]
    assert [run["run"] for run in account(copy)["runs"]] == ["policy.kl_coef=0.1", SECOND]


def test_the_plain_run_of_the_folder_shares_too(first: Path, cache: Path, tmp_path: Path, worked: list[str]) -> None:
    root = tmp_path / "root"
    for stage in ("sft", "reward"):
        shutil.copytree(first / FIRST / stage, root / stage)
    assert call(*arguments(root, cache, "policy.kl_coef=[0.02]", "policy.steps=1")) == 0
    assert worked == [f"{FIRST} policy", f"{FIRST} evaluate"]


def test_another_seed_shares_nothing(cache: Path, copy: Path, worked: list[str]) -> None:
    assert call(*arguments(copy, cache, "seed=[1]", "policy.steps=1")) == 0
    assert worked == [f"seed=1 {stage}" for stage in STAGES]


def test_a_damaged_result_is_replaced_by_a_good_one(copy: Path, cache: Path, worked: list[str]) -> None:
    """Half a result.json, as after a power cut: the same stage stands finished in the other run."""
    (copy / SECOND / "sft" / "result.json").write_text("{", encoding="utf-8")
    assert call(*arguments(copy, cache, "policy.kl_coef=[0.5]", "policy.steps=1")) == 0
    assert worked == [f"{SECOND} policy", f"{SECOND} evaluate"]
    assert RunDir(copy / SECOND).require("sft") == RunDir(copy / FIRST).require("sft")


def test_killed_it_goes_on_with_the_same_bits(first: Path, copy: Path, cache: Path, worked: list[str]) -> None:
    """While the second policy trains; and a copy that another kill left half made is no harm."""
    shutil.rmtree(copy / SECOND)
    command = [sys.executable, "-m", "pipeline.cli", *arguments(copy, cache), "checkpoint.seconds=0"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not any((copy / SECOND / "policy" / "checkpoints").glob("[0-9]*")):
        assert process.poll() is None
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (copy / SECOND / "policy" / "result.json").is_file()
    shutil.copytree(copy / SECOND / "reward", copy / SECOND / ".reward")
    (copy / SECOND / ".reward" / "reward" / "head.safetensors").write_text("half")
    shutil.rmtree(copy / SECOND / "reward")
    assert call(*arguments(copy, cache)) == 0
    assert worked == [f"{SECOND} policy", f"{SECOND} evaluate"]
    assert contents(copy / SECOND) == contents(first / SECOND)
    assert not list(copy.glob("*/.*"))


def test_a_run_that_fails_leaves_the_others_alone(
    run_align: Align, at_root: Path, copy: Path, cache: Path, worked: list[str]
) -> None:
    """No sampler agrees to 10⁻³⁰ nats: that run ends with a sentence, the next one is done."""
    extra = ("policy.max_sampler_kl=[1e-30,1.0]", "policy.kl_coef=0.02")
    code, _, err = run_align(*arguments(copy, cache, *extra))
    assert code == 2
    assert "the sampler is" in " ".join(err.split())
    assert "1 of 2 runs can't go on" in " ".join(err.split())
    runs = account(copy)["runs"]
    assert "the sampler is" in runs[0]["failed"]
    assert runs[1]["failed"] is None
    assert runs[1]["shared"] == {"sft": "policy.max_sampler_kl=1e-30", "reward": "policy.max_sampler_kl=1e-30"}
    assert worked == ["policy.max_sampler_kl=1e-30 policy"]  # 1.0 is the default: the other is the first run again
    assert contents(copy / "policy.max_sampler_kl=1.0") == contents(copy / FIRST)


def test_the_tables_and_json(run_align: Align, at_root: Path, copy: Path, cache: Path) -> None:
    code, out, _ = run_align(*arguments(copy, cache), "--json")
    assert code == 0
    assert json.loads(out) == account(copy)
    code, out, _ = run_align(*arguments(copy, cache))
    assert code == 0
    for part in ("policy.kl_coef", "0.02", "win rate over SFT", "sft, reward"):
        assert part in " ".join(out.split())


def test_bad_use_is_one_sentence(run_align: Align, at_root: Path) -> None:
    code, _, err = run_align("sweep", "configs/smoke.yaml", "policy.kl_coef=0.1")
    assert code == 2
    assert "nothing varies" in err
    assert "Traceback" not in err


def test_the_help_teaches(run_align: Align) -> None:
    code, out, _ = run_align("sweep", "--help")
    assert code == 0
    for part in ("CONFIG", "KEY=[VALUES]", "policy.kl_coef=[0.02,0.05,0.2]", "--json", "frontier.html"):
        assert part in out
