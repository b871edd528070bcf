"""The whole chain on the tiny model: everything is written, nothing runs twice, one seed gives one result."""

import math
import shutil
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForCausalLM

from pipeline.cli import main
from pipeline.rundir import STAGES, RunDir, read_jsonl, summary
from tests.conftest import Align

ROOT = Path(__file__).parents[1]
DOCUMENTED = (
    "reward.accuracy",
    "reward.accuracy_low",
    "reward.accuracy_high",
    "reward.length_baseline",
    "evaluate.win_rate.policy_vs_sft",
    "evaluate.win_rate.policy_vs_sft_low",
    "evaluate.win_rate.policy_vs_sft_high",
    "evaluate.kl",
    "evaluate.mean_tokens.sft",
    "evaluate.mean_tokens.policy",
    "policy.seconds_per_iteration",
    "policy.peak_rss_mb",
    "total_seconds",
)


def align(folder: Path, cache: Path, *extra: str, command: str = "run") -> RunDir:
    overrides = [f"run_dir={folder}", f"model.cache_dir={cache}", "logging.progress=false"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        code = 0
        try:
            main([command, "configs/smoke.yaml", *overrides, *extra])
        except SystemExit as stop:
            code = stop.code  # type: ignore[assignment]
    assert not code
    return RunDir(folder)


@pytest.fixture(scope="module")
def run(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """One whole run; tests that change it work on a copy."""
    return align(tmp_path_factory.mktemp("runs") / "first", cache)


@pytest.fixture
def copy(run: RunDir, tmp_path: Path) -> Path:
    return Path(shutil.copytree(run.path, tmp_path / "copy"))


def written(run: RunDir) -> dict[str, int]:
    """When each stage's result was written."""
    return {stage: (run.path / stage / "result.json").stat().st_mtime_ns for stage in STAGES}


def repeated(before: dict[str, int], run: RunDir) -> list[str]:
    now = written(run)
    return [stage for stage in STAGES if now[stage] != before[stage]]


def figures(run: RunDir) -> dict[str, Any]:
    """Everything that was measured, without what depends on the clock."""
    found: dict[str, Any] = {}
    for stage in STAGES:
        rows = read_jsonl(run.path / stage / "metrics.jsonl")
        found[stage] = [{k: v for k, v in row.items() if not k.startswith("time/")} for row in rows]
        metrics = run.require(stage).metrics
        found[f"{stage} result"] = {k: v for k, v in metrics.items() if not k.startswith("seconds")}
    return found


# ---- what a run leaves --------------------------------------------------------------------------------------


def test_every_stage_leaves_its_result_and_its_files(run: RunDir) -> None:
    for stage in STAGES:
        result = run.require(stage)
        assert (result.stage, len(result.fingerprint)) == (stage, 16)
        assert result.seconds > 0
        for name in result.artifacts:
            folder = run.artifact(stage, name)
            assert {"adapter_model.safetensors", "adapter_config.json"} <= {p.name for p in folder.iterdir()}
    assert set(run.require("reward").artifacts) == {"reward", "judge"}
    assert set(run.require("policy").artifacts) == {"policy", "critic"}
    assert (run.path / "config.yaml").is_file()


def test_the_report_is_written_and_holds_its_own(run: RunDir) -> None:
    page = (run.path / "report.html").read_text(encoding="utf-8")
    assert "<html" in page
    assert 'src="http' not in page


def test_the_documented_figures_are_there_and_finite(run: RunDir) -> None:
    found = summary(run)
    assert not [name for name in DOCUMENTED if name not in found]
    assert all(math.isfinite(found[name]) for name in DOCUMENTED)
    rate = "evaluate.win_rate.policy_vs_sft"
    assert 0 <= found[f"{rate}_low"] <= found[rate] <= found[f"{rate}_high"] <= 1
    assert found["reward.accuracy_low"] <= found["reward.accuracy"] <= found["reward.accuracy_high"]
    assert 0.5 <= found["reward.length_baseline"] <= 1
    assert found["total_seconds"] == pytest.approx(sum(found[f"{stage}.seconds"] for stage in STAGES), abs=0.05)


def test_the_first_step_starts_at_the_reference(run: RunDir) -> None:
    """The policy still is the SFT model: KL exactly 0, ratio 1; later it isn't."""
    rows = read_jsonl(run.path / "policy" / "metrics.jsonl")
    assert [row["step"] for row in rows] == [1, 2, 3]
    assert rows[0]["objective/kl"] == 0.0
    assert rows[0]["policy/first_ratio_error"] <= 1e-5
    assert rows[0]["policy/sampler_mismatch"] <= 1e-4
    assert rows[2]["objective/kl"] != 0.0


def test_samples_can_be_read(run: RunDir) -> None:
    rows = read_jsonl(run.path / "evaluate" / "samples.jsonl")
    assert len(rows) == 8
    assert set(rows[0]["answers"]) == {"base", "sft", "policy", "best_of_n"}
    assert all(answer["tokens"] <= 12 for row in rows for answer in row["answers"].values())


def test_no_secret_path_or_host_is_written(run: RunDir) -> None:
    import socket

    for stage in STAGES:
        text = (run.path / stage / "result.json").read_text(encoding="utf-8")
        assert str(Path.home()) not in text or str(Path.home()) == "/"
        assert socket.gethostname() not in text or len(socket.gethostname()) < 4


# ---- what runs again ----------------------------------------------------------------------------------------


def test_a_second_run_skips_everything(copy: Path, cache: Path) -> None:
    before = written(RunDir(copy))
    assert repeated(before, align(copy, cache)) == []


def test_checkpoints_that_a_kill_left_behind_are_removed_once_the_stage_is_done(copy: Path, cache: Path) -> None:
    left = copy / "sft" / "checkpoints" / "000003-sft"
    left.mkdir(parents=True)
    assert repeated(written(RunDir(copy)), align(copy, cache)) == []
    assert not left.parent.exists()


def test_a_changed_policy_section_repeats_policy_and_evaluation_only(copy: Path, cache: Path) -> None:
    before = written(RunDir(copy))
    again = align(copy, cache, "policy.steps=1")
    assert repeated(before, again) == ["policy", "evaluate"]
    assert again.require("policy").metrics["steps"] == 1
    assert repeated(written(again), align(copy, cache, "policy.steps=1")) == []


def test_a_changed_evaluation_repeats_itself_only(copy: Path, cache: Path) -> None:
    before = written(RunDir(copy))
    assert repeated(before, align(copy, cache, "evaluate.best_of=1")) == ["evaluate"]
    assert not [name for name in summary(RunDir(copy)) if "best_of_n" in name]


def test_changed_data_repeats_the_stage_that_reads_it(copy: Path, cache: Path, tmp_path: Path) -> None:
    """The file's bytes count, not its name."""
    data = tmp_path / "eval.jsonl"
    data.write_text('{"prompt": "one"}\n{"prompt": "two"}\n', encoding="utf-8")
    option = f"evaluate.data.source={data}"
    before = written(align(copy, cache, option))
    assert repeated(before, align(copy, cache, option)) == []
    data.write_text('{"prompt": "one"}\n{"prompt": "three"}\n', encoding="utf-8")
    assert repeated(before, align(copy, cache, option)) == ["evaluate"]


def test_force_repeats_one_stage_and_withdraws_those_after_it(copy: Path, cache: Path) -> None:
    before = written(RunDir(copy))
    again = align(copy, cache, "--force", command="sft")
    assert (again.path / "sft" / "result.json").stat().st_mtime_ns != before["sft"]
    assert [stage for stage in STAGES if again.result(stage) is not None] == ["sft"]


def test_force_repeats_a_stage_whose_result_is_damaged(copy: Path, cache: Path) -> None:
    """What the error message about a damaged result promises."""
    (copy / "sft" / "result.json").write_text("{", encoding="utf-8")
    again = align(copy, cache, "--force", command="sft")
    assert again.require("sft").stage == "sft"


def test_a_stage_refuses_adapters_made_under_another_lora_section(copy: Path, cache: Path) -> None:
    """sft stands there with α = 8; read under α = 16 it would be another model."""
    with pytest.raises(AssertionError):
        align(copy, cache, "lora.alpha=16", command="policy")


def test_no_pairs_kept_apart_is_refused_or_works_but_never_breaks(copy: Path, cache: Path) -> None:
    try:
        align(copy, cache, "reward.test=0.0", "reward.validation=0.0", command="reward")
    except AssertionError:
        pass  # one message and exit code 2
    else:
        assert RunDir(copy).result("reward") is not None


# ---- seeds --------------------------------------------------------------------------------------------------


def test_one_seed_one_result_another_seed_another(run: RunDir, tmp_path: Path, cache: Path) -> None:
    again = figures(align(tmp_path / "again", cache))
    assert again == figures(run)
    other = figures(align(tmp_path / "other", cache, "seed=1"))
    for stage in STAGES:
        assert other[f"{stage} result"] != again[f"{stage} result"]


def test_a_closed_gate_stops_the_run_and_its_name_opens_it(
    run_align: Align, at_root: Path, run: RunDir, cache: Path, tmp_path: Path
) -> None:
    """Nothing that was computed is computed again, and the report tells."""
    folder = tmp_path / "run"
    shutil.copytree(run.path, folder)
    shutil.rmtree(folder / "policy")
    arguments = ["run", "configs/smoke.yaml", f"run_dir={folder}", f"model.cache_dir={cache}", "logging.progress=false"]
    before = (folder / "reward" / "result.json").read_bytes()
    code, _, err = run_align(*arguments, "gates.skip=[sft_ends]")
    assert code == 2
    assert "reward_beats_chance" in err
    assert "gates.skip=[reward_beats_chance" in "".join(err.split("\n"))
    assert not (folder / "policy").exists()
    code, _, _ = run_align(*arguments)
    assert code == 0
    assert (folder / "reward" / "result.json").read_bytes() == before
    assert "passed over (gates.skip)" in (folder / "report.html").read_text(encoding="utf-8")


# ---- every weight instead of adapters -----------------------------------------------------------------------


def test_without_lora_every_role_is_a_whole_model(cache: Path, tmp_path: Path, run: RunDir) -> None:
    full = align(tmp_path / "full", cache, "lora=null")
    folders = [full.artifact(*where) for where in (("sft", "sft"), ("reward", "reward"), ("policy", "policy"))]
    sizes = [AutoModelForCausalLM.from_pretrained(folder).num_parameters() for folder in folders]
    assert sizes[0] == full.require("sft").metrics["trainable_parameters"]
    head = full.require("reward").metrics["trainable_parameters"] - sizes[1]
    assert head == 33  # hidden size 32, and a bias
    assert full.require("policy").metrics["kl_first"] == 0 == run.require("policy").metrics["kl_first"]
    assert full.require("sft").metrics["trainable_parameters"] > run.require("sft").metrics["trainable_parameters"]


def test_a_quantised_base_cannot_learn(run_align: Align, at_root: Path) -> None:
    code, _, err = run_align("config", "configs/smoke.yaml", "lora=null", "model.quantization=4bit")
    assert code == 2
    assert "model.quantization: none" in err


@pytest.mark.parametrize("kind", ["4bit", "8bit"])
def test_every_stage_runs_on_a_quantised_base(cache: Path, tmp_path: Path, kind: str) -> None:
    overrides = [
        f"model.quantization={kind}",
        *(f"{stage}.optimizer=adamw_8bit" for stage in ("sft", "reward", "policy")),
    ]
    quantised = align(tmp_path / kind, cache, *overrides)
    figures = summary(quantised)
    assert figures["policy.kl_first"] == pytest.approx(0, abs=1e-4)
    assert figures["policy.first_ratio_error"] <= 1e-4
    assert math.isfinite(figures["evaluate.win_rate.policy_vs_sft"])
    assert quantised.require("sft").metrics["loss"] < quantised.require("sft").metrics["loss_before"]
