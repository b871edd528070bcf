"""Several processes give what one gives, to 1e-5: one smoke run each way, everything compared. Two over gloo here."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from pipeline.rundir import STAGES, read_jsonl
from tests.test_resume import contents, without_times

ROOT = Path(__file__).parents[1]
TOLERANCE = 1e-5
STEPS = 5
# Shares that come out uneven everywhere: a last batch of one row, three prompts a step, minibatches of 4 and of 2 rows.
SETTINGS = (
    "configs/smoke.yaml",
    "model.device=cpu",
    "checkpoint.seconds=0",
    "sft.batch_size=11",
    "sft.microbatch_size=3",
    "sft.learning_rate=0.003",
    "reward.batch_size=8",
    "reward.microbatch_size=3",
    "reward.learning_rate=0.003",
    "policy.prompts_per_step=3",
    "policy.microbatch_size=3",
    "policy.kl_target=0.5",
    "policy.critic_warmup_steps=1",
    f"policy.steps={STEPS}",
    "evaluate.data.limit=4",
    "evaluate.batch_size=5",
    "evaluate.judges={local: {kind: llm_local}}",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def done(folder: Path, cache: Path) -> dict[str, Any]:
    """What became of all jobs, by name; each has a run folder of its name, but for the three that go on in one."""

    def job(run: str, processes: int, *extra: str, **options: Any) -> dict[str, Any]:
        arguments = ["run", *SETTINGS, f"run_dir={folder / run}", f"model.cache_dir={cache}", *extra]
        return {"processes": processes, "arguments": arguments, **options}

    hit, asked = folder / "hit" / "sft" / "result.json", folder / "hit" / "policy" / "checkpoints" / "000002-policy"
    jobs = {
        "one": job("one", 1),
        "two": job("two", 2),
        "killed": job("hit", 2, at=str(hit), to=1, signal=int(signal.SIGKILL)),
        "asked": job("hit", 2, at=str(asked), to=1, signal=int(signal.SIGTERM)),
        "ended": job("hit", 2, spoil=str(folder / "hit")),
    }
    command = [sys.executable, "-m", "tests.together", json.dumps(list(jobs.values()))]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert found.returncode == 0, found.stderr
    return dict(zip(jobs, json.loads(found.stdout), strict=True))


def numbers(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Every leaf of a JSON value with its place. Left out are scores that were rounded for reading, curves fitted to so
    few steps that they follow the last digits, and the share of exact ties."""
    if isinstance(value, dict):
        for key, part in without_times(value).items():
            rounded = path.partition("/")[2].startswith("samples") and key in ("judge", "reward", "score", "kl")
            if not (rounded or key.startswith("curve.") or key == "objective/equal_groups"):
                yield from numbers(part, f"{path}/{key}")
    elif isinstance(value, list):
        for index, part in enumerate(value):
            yield from numbers(part, f"{path}/{index}")
    else:
        yield path, value


def figures(run: Path) -> dict[str, Any]:
    """All figures and texts of a run, and its weights."""
    found: dict[str, Any] = {}
    for stage in STAGES:
        result = json.loads((run / stage / "result.json").read_text(encoding="utf-8"))
        found |= numbers(result["metrics"], f"{stage}/result")
        for name in ("metrics", "samples"):
            found |= numbers(read_jsonl(run / stage / f"{name}.jsonl"), f"{stage}/{name}")
        for path in sorted((run / stage).rglob("*.safetensors")):
            found |= {f"{path.relative_to(run)}/{key}": value for key, value in load_file(path).items()}
    return found


def distances(run: Path, other: Path) -> dict[str, float]:
    """How far two runs' numbers are apart, relative to those above 1; everything else must be equal."""
    ours, theirs = figures(run), figures(other)
    assert ours.keys() == theirs.keys()
    found = {}
    for name, value in ours.items():
        if isinstance(value, torch.Tensor):
            found[name] = (value - theirs[name]).abs().max().item()
        elif isinstance(value, float):
            found[name] = abs(value - theirs[name]) / max(1.0, abs(value))
        else:
            assert value == theirs[name], name
    return found


def test_two_processes_give_what_one_gives(done: dict[str, Any], folder: Path) -> None:
    assert done["one"]["codes"] == [0]
    assert done["two"]["codes"] == [0, 0]
    found = distances(folder / "one", folder / "two")
    assert {name: value for name, value in found.items() if value > TOLERANCE} == {}
    for kind in ("sft/adapter", "reward/judge", "policy/critic", "policy/metrics", "evaluate/result"):
        assert any(name.startswith(kind) for name in found)


def test_shares_were_uneven_and_something_was_learned(folder: Path, done: dict[str, Any]) -> None:
    """Or the comparison would say little."""
    result = json.loads((folder / "two" / "sft" / "result.json").read_text(encoding="utf-8"))
    assert result["metrics"]["train_rows"] % 11 == 1
    up = [value for name, value in figures(folder / "two").items() if "lora_B" in name]
    assert all(value.abs().max() > 100 * TOLERANCE for value in up)  # they start at 0


def test_the_first_process_alone_speaks_and_writes(done: dict[str, Any], folder: Path) -> None:
    first, second = done["two"]["told"]
    assert "policy: done" in first
    assert "report:" in first
    assert second == ""
    rows = read_jsonl(folder / "two" / "policy" / "metrics.jsonl")
    assert [row["step"] for row in rows] == list(range(1, STEPS + 1))


def test_when_one_is_killed_the_others_end_and_say_so(done: dict[str, Any]) -> None:
    assert done["killed"]["codes"] == [2, -signal.SIGKILL]
    assert "another process of this run has ended" in done["killed"]["told"][0]
    assert "Traceback" not in done["killed"]["told"][0]


def test_a_signal_to_one_stops_all_after_their_step(done: dict[str, Any]) -> None:
    assert done["asked"]["codes"] == [130, 130]
    assert "run the same command to go on" in done["asked"]["told"][0]


def test_killed_stopped_and_spoilt_it_ends_with_the_same_bits(done: dict[str, Any], folder: Path) -> None:
    assert "is damaged" in done["ended"]["told"][0]
    assert done["ended"]["codes"] == [0, 0]
    assert contents(folder / "hit") == contents(folder / "two")
