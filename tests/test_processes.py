"""Several processes give what one gives, to 1e-5: one smoke run each way, everything compared. Two over gloo here."""

import json
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils.launch import prepare_multi_gpu_env
from safetensors.torch import load_file
from torch.distributed.tensor import DTensor

from pipeline import processes
from pipeline.lm.sources import ModelError
from pipeline.lm.vllm_sampler import VllmSampler
from pipeline.rundir import STAGES, read_jsonl
from tests.lm.builders import tiny
from tests.test_resume import contents, without_times
from tests.together import free_port, join, surroundings

ROOT = Path(__file__).parents[1]
DEEPSPEED = find_spec("deepspeed") is not None
needs_deepspeed = pytest.mark.skipif(not DEEPSPEED, reason="DeepSpeed isn't installed")
TOLERANCE = 1e-5
STEPS = 4
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
    "policy.sampling.max_new_tokens=6",
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
        "sharded": job("sharded", 2, "model.gradient_checkpointing=true", pieces="FSDP"),
    }
    if DEEPSPEED:
        jobs["zero3"] = job("zero3", 2, pieces="DEEPSPEED")
        jobs["zero3-again"] = job("zero3-again", 2, "model.gradient_checkpointing=true", pieces="DEEPSPEED")
    command = [sys.executable, "-m", "tests.together", json.dumps(list(jobs.values()))]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=1800, check=False)
    assert found.returncode == 0, found.stderr
    return dict(zip(jobs, json.loads(found.stdout.splitlines()[-1]), strict=True))  # DeepSpeed speaks before


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


def test_a_base_in_pieces_gives_what_a_whole_one_gives(done: dict[str, Any], folder: Path) -> None:
    """FSDP2, with activations computed again: every stage, sampling and PPO's two passes before one backward too."""
    assert done["sharded"]["codes"] == [0, 0]
    found = distances(folder / "one", folder / "sharded")
    assert {name: value for name, value in found.items() if value > TOLERANCE} == {}


@needs_deepspeed
@pytest.mark.parametrize("run", ["zero3", "zero3-again"])
def test_a_base_in_deepspeeds_pieces_gives_what_a_whole_one_gives(done: dict[str, Any], folder: Path, run: str) -> None:
    """ZeRO-3, activations kept, and computed again."""
    assert done[run]["codes"] == [0, 0]
    found = distances(folder / "one", folder / run)
    assert {name: value for name, value in found.items() if value > TOLERANCE} == {}


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


# ---- the parts ----------------------------------------------------------------------------------------------


def in_two(work: Callable[[], None], pieces: str | None = None) -> list[int]:
    """Exit codes of two joined processes, forked from this one, that do `work`; 0 = nothing was raised."""
    port, children = free_port(), []
    for rank in range(2):
        if not (child := os.fork()):
            code = 1
            try:
                join(rank, 2, port, pieces)
                with processes.joined("cpu"):
                    work()
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(code)
        children.append(child)
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


@pytest.mark.parametrize("count", [1, 2, 5, 8, 9])
def test_every_item_is_in_one_batch_and_all_have_as_many_batches(count: int) -> None:
    def work() -> None:
        mine = list(processes.batches(range(count), 2))
        assert all(0 < len(batch) <= 2 for batch, _ in mine)
        everybody = processes.each(mine)
        assert len({len(batches) for batches in everybody}) == 1
        counted = [item for batches in everybody for batch, counts in batches if counts for item in batch]
        assert sorted(counted) == list(range(count))

    assert in_two(work) == [0, 0]


def test_alone_everything_is_its_own() -> None:
    assert list(processes.batches("abcde", 2)) == [("a", True), ("bc", True), ("de", True)]
    assert list(processes.batches([], 2)) == []
    value = torch.ones(3)
    processes.add(value)
    assert value.tolist() == [1, 1, 1]
    assert processes.told(lambda: 7) == 7
    assert not processes.anyone(False)


def test_sums_and_maxima_over_processes() -> None:
    def work() -> None:
        rank = processes.rank()
        floats, numbers, largest = torch.tensor([0.1 * (1 - rank), 2.0 * rank]), torch.tensor(rank + 1), torch.zeros(1)
        weight = torch.nn.Parameter(torch.zeros(2, 2))
        weight.grad = torch.full((2, 2), float(rank + 1)).T
        processes.add(floats, numbers)
        processes.combine([weight], sums := torch.tensor([1.0]), largest.fill_(rank))
        assert floats.tolist() == torch.tensor([0.1, 2.0]).tolist()  # beside zeros the same bits
        assert (int(numbers), float(sums), float(largest)) == (3, 2.0, 1.0)
        assert weight.grad.tolist() == [[3.0, 3.0], [3.0, 3.0]]
        assert processes.told(lambda: "first" if rank == 0 else "second") == "first"
        assert processes.anyone(rank == 1)

    assert in_two(work) == [0, 0]


def test_layers_are_in_pieces_and_the_rest_is_whole(cache: Path) -> None:
    def work() -> None:
        base = tiny(cache)
        layers = [p for name, p in base.trunk.named_parameters() if name.startswith("layers.") and "lora" not in name]
        held = sum(p.to_local().numel() for p in layers)
        assert held == sum(p.numel() for p in layers) / 2
        assert not isinstance(base.head_weight, DTensor)
        base.roles.add("sft")
        assert not any(isinstance(p, DTensor) for p in base.roles.parameters_of("sft"))
        assert base.lower is None

    tiny(cache)
    assert in_two(work, "FSDP") == [0, 0]


@needs_deepspeed
def test_of_deepspeeds_layers_one_is_whole_at_a_time(cache: Path) -> None:
    def work() -> None:
        base = tiny(cache)
        layers = [list(layer.parameters()) for layer in base.trunk.layers]

        def whole() -> list[bool]:
            held = [{parameter.numel() > 0 for parameter in own} for own in layers]
            assert all(len(kinds) == 1 for kinds in held)
            return [kinds.pop() for kinds in held]

        assert whole() == [False, True]  # loading ends with a pass that checks the head
        assert all(p.ds_tensor.numel() == -(-p.ds_numel // 2) for own in layers for p in own)
        assert base.head_weight.numel() == len(base.chat.tokenizer) * base.head_weight.shape[1]
        base.roles.add("sft")
        base.roles.train_only("sft")
        with base.roles.using("sft"):
            hidden = base.trunk(torch.arange(4)[None]).last_hidden_state
        assert whole() == [False, True]
        hidden.sum().backward()
        assert whole() == [True, False]
        assert all(p.numel() > 0 and p.grad is not None for p in base.roles.parameters_of("sft"))

    tiny(cache)
    assert in_two(work, "DEEPSPEED") == [0, 0]


def test_deepspeeds_other_stages_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    told = surroundings(0, 2, free_port(), "DEEPSPEED") | {"ACCELERATE_DEEPSPEED_ZERO_STAGE": "2"}
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    with (
        pytest.raises(processes.ProcessError, match="stage 2 isn't known here: take zero_stage: 3"),
        processes.joined(),
    ):
        pass


def test_what_one_process_cant_do_is_refused(cache: Path) -> None:
    def work() -> None:
        with pytest.raises(ModelError, match="works in one process"):
            VllmSampler(tiny(cache), memory=0.4, max_length=16)

    tiny(cache)
    assert in_two(work) == [0, 0]


@pytest.mark.parametrize("path", sorted((ROOT / "configs" / "accelerate").glob("*.yaml")), ids=lambda path: path.stem)
def test_accelerate_takes_its_configs(path: Path) -> None:
    """It refuses a key that it doesn't know, and makes of the file what the launcher hands to the processes."""
    config = load_config_from_file(str(path))
    parser = launch_command_parser()
    arguments, *_ = _validate_launch_command(parser.parse_args(["--config_file", str(path), "--cpu", "scripts/run.py"]))
    assert config.num_processes == 2
    assert arguments.use_fsdp == (path.stem == "fsdp2")
    if arguments.use_fsdp:
        assert prepare_multi_gpu_env(arguments)[processes.FSDP] == "true"
        assert config.fsdp_config["fsdp_version"] == 2
