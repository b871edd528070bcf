"""`align reward-card`: what it says of a run's own pairs is what the stage said, and of a file what was planted."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.lm.reward import RewardModel
from pipeline.rundir import RunDir
from pipeline.stages.scored_pairs import batch_error
from tests.conftest import Align
from tests.lm.builders import noisy, tiny
from tests.test_pipeline import align

DATA = ("reward.data.limit=160", "reward.test=0.3", "reward.max_length=512")


@pytest.fixture(scope="module")
def run(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    folder = tmp_path_factory.mktemp("card") / "run"
    for stage in ("sft", "reward"):
        align(folder, cache, *DATA, command=stage)
    return RunDir(folder)


@pytest.fixture
def card(at_root: Path, run_align: Align, run: RunDir) -> Any:
    """Figures of `align reward-card RUN … --json`."""

    def call(*arguments: str, path: Path = run.path) -> dict[str, Any]:
        code, out, err = run_align("reward-card", str(path), *arguments, "--json")
        assert code == 0, err
        assert out.count("\n") == 1
        return json.loads(out)  # type: ignore[no-any-return]

    return call


@pytest.fixture
def bench(tmp_path: Path, run: RunDir) -> Path:
    """A file in the manner of RewardBench: two subsets, one prompt in five from the run's own pairs, a bad row."""
    rows = [
        {"prompt": f"Question {i}?", "chosen": "Yes, it is." + "!" * (i % 3), "rejected": f"No, {i}.", "subset": name}
        for i, name in enumerate(["chat"] * 3 + ["safety"] * 5)
    ]
    known = [json.loads(line) for line in Path("data/quickstart/preferences.jsonl").read_text().splitlines()[:160]]
    rows += [{**row, "subset": "chat"} for row in known[:2]]
    rows.append({"prompt": "Bad", "chosen": "same", "rejected": "same", "subset": "chat"})
    path = tmp_path / "bench.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.mark.parametrize(("adapter", "prefix"), [("reward", ""), ("judge", "judge_")])
def test_the_runs_own_pairs_give_the_stages_figures(card: Any, run: RunDir, adapter: str, prefix: str) -> None:
    found, metrics = card("--adapter", adapter), run.require("reward").metrics
    assert found["n"] == metrics["test_pairs"] > 20
    for key in ("accuracy", "accuracy_low", "accuracy_high"):
        assert found[key] == metrics[f"{prefix}{key}"]
    for key in ("log_loss", "ece", "ece_by_chance", "temperature", "ece_after_temperature"):
        assert found[key] == pytest.approx(metrics[f"{prefix}{key}"], abs=1e-4)
    assert found["length_baseline"] == metrics["length_baseline"]
    assert [band["n"] for band in found["calibration"]] == [band["n"] for band in metrics[f"{prefix}calibration"]]
    assert found["chosen_counts"] == metrics[f"{prefix}chosen_counts"]
    assert sum(found["chosen_counts"]) == found["n"]
    other = "judge" if adapter == "reward" else "reward"
    assert 0 <= found[f"agreement.{other}.equal_orders"] <= 1
    assert found["score_batch_error"] < 1e-4
    assert 0 <= found["logprob_baseline"] <= 1
    assert found["by"] == "category"
    assert "seen_prompts" not in found


def test_agreement_is_the_same_from_both_sides(card: Any) -> None:
    reward, judge = (card("--adapter", name, "--limit", "15") for name in ("reward", "judge"))
    for key in ("equal_orders", "correlation"):
        assert reward[f"agreement.judge.{key}"] == pytest.approx(judge[f"agreement.reward.{key}"])


def test_failures_as_subsets_are_the_stages_too(card: Any, run: RunDir) -> None:
    found = card("--by", "failure")
    metrics = run.require("reward").metrics
    head = "accuracy_by_failure."
    kinds = {key.removeprefix(head): value for key, value in metrics.items() if key.startswith(head)}
    assert len(kinds) > 2
    assert {kind: found[f"subsets.{kind}.accuracy"] for kind in kinds} == kinds


def test_a_benchmark_file(card: Any, bench: Path) -> None:
    found = card(str(bench))
    assert (found["by"], found["n"], found["prompts"], found["left_out"]) == ("subset", 10, 9, 1)
    assert (found["subsets.chat.n"], found["subsets.safety.n"]) == (5, 5)
    mean = (found["subsets.chat.accuracy"] + found["subsets.safety.accuracy"]) / 2
    assert found["subset_mean"] == pytest.approx(mean)
    assert found["subset_mean_weighted"] == pytest.approx(found["accuracy"])
    assert found["subsets.safety.longer_wins"] == 1.0
    for error in found["hardest"]:
        assert error["chosen_score"] <= error["rejected_score"]
        assert error["subset"] in ("chat", "safety")
    assert len(found["hardest"]) == 10 - round(10 * found["accuracy"])
    assert card(str(bench), "--limit", "4")["n"] == 4


def test_prompts_that_were_trained_on_are_counted(card: Any, run: RunDir, tmp_path: Path) -> None:
    """The whole file holds the test part, the judge's and the reward model's own."""
    parts = run.require("reward").data["reward"]
    own = (parts["reward"] + parts["reward_validation"]) / 160
    found = card("data/quickstart/preferences.jsonl", "--limit", "160", "--max-length", "60")  # cut, to be quick
    assert found["seen_prompts"] == pytest.approx(own)
    moved = shutil.copytree(run.path, tmp_path / "moved")
    text = (moved / "config.yaml").read_text().replace("data/quickstart/preferences.jsonl", "elsewhere/pairs.jsonl")
    (moved / "config.yaml").write_text(text)
    assert "seen_prompts" not in card("data/quickstart/preferences.jsonl", "--limit", "5", path=moved)


def test_answers_at_the_limit_are_counted(card: Any) -> None:
    """Here a token is a byte: 100 cut nearly all answers, and pairs that the cut makes equal are left out."""
    whole, short = card("--limit", "40"), card("--limit", "40", "--max-length", "100")
    assert (whole["truncated"], whole["left_out"]) == (0, 0)
    assert short["truncated"] > 0.8
    assert short["n"] + short["left_out"] == whole["n"]
    assert short["left_out"] > 0


def test_the_best_of_n(card: Any) -> None:
    rows = card("--best-of", "4", "--limit", "20")["best_of_n"]
    assert [row["n"] for row in rows] == [1, 2, 3, 4]
    scores = [row["reward"] for row in rows]
    assert scores == sorted(scores)
    assert scores[0] < scores[-1]
    assert rows[0]["kl"] == 0
    assert all(row["reward_se"] > 0 for row in rows)
    assert max(abs(row["reward_fitted"] - row["reward"]) for row in rows) < 0.1 * (scores[-1] - scores[0])
    by_judge = card("--best-of", "4", "--adapter", "judge", "--limit", "20")["best_of_n"]
    assert by_judge[0]["judge"] == pytest.approx(rows[0]["judge"], abs=1e-4)  # the same answers, none chosen yet
    assert by_judge[3]["judge"] > rows[3]["judge"]  # whoever chooses likes the choice best


def test_the_page_and_the_terminal(run_align: Align, at_root: Path, run: RunDir, bench: Path, tmp_path: Path) -> None:
    code, out, err = run_align("reward-card", str(run.path), str(bench))
    assert code == 0, err
    for part in ("The reward model orders", "who orders the pairs", "Mean over subsets", "calibration error"):
        assert part in out
    assert "couldn't be used and were left out" in " ".join(out.split())
    page = (run.path / "reward-card.html").read_text(encoding="utf-8")
    assert "the reward model’s card" in page
    (run.path / "reward-card.html").unlink()
    code, out, _ = run_align("reward-card", str(run.path), str(bench), "--json", "--html", str(tmp_path / "card.html"))
    assert code == 0
    assert json.loads(out)["n"] == 10
    assert (tmp_path / "card.html").read_text(encoding="utf-8") == page
    assert not (run.path / "reward-card.html").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--by", "colour"], "no column 'colour' to take subsets from; it has category, failure"),
        (["nowhere.jsonl"], "nowhere.jsonl"),
        (["data/quickstart/prompts.jsonl"], "cannot serve preferences"),
        (["--max-length", "3"], "all answers agree up to token 3"),
        (["--best-of", "2", "--limit", "1"], "best of n needs two prompts"),
    ],
)
def test_bad_use_is_one_sentence(
    run_align: Align, at_root: Path, run: RunDir, arguments: list[str], message: str
) -> None:
    code, _, err = run_align("reward-card", str(run.path), *arguments)
    assert code == 2
    assert message in " ".join(err.split())
    assert "Traceback" not in err


def test_a_run_that_cannot_tell_is_refused(run_align: Align, at_root: Path, run: RunDir, tmp_path: Path) -> None:
    """Another seed in config.yaml would make training pairs of test pairs; a run without a judge has no card of it."""
    copy = shutil.copytree(run.path, tmp_path / "copy")
    text = (copy / "config.yaml").read_text().replace("seed: 0", "seed: 1")
    (copy / "config.yaml").write_text(text)
    code, _, err = run_align("reward-card", str(copy))
    assert code == 2
    assert "settings or data" in " ".join(err.split())
    result = json.loads((copy / "reward" / "result.json").read_text())
    del result["artifacts"]["judge"]
    (copy / "reward" / "result.json").write_text(json.dumps(result))
    code, _, err = run_align("reward-card", str(copy), "--adapter", "judge")
    assert code == 2
    assert "has no 'judge' model; it has reward" in " ".join(err.split())


@pytest.mark.parametrize(
    "fault",
    [
        lambda batch: [0.0, 0.0, 1.0][: len(batch)],  # its place in the batch
        lambda batch: [float(i > 0 and batch[i] < batch[i - 1]) for i in range(len(batch))],  # whom it follows
        lambda batch: [float(len(batch) > 1)] * len(batch),  # company
    ],
)
def test_a_score_that_depends_on_its_batch_is_found(cache: Path, monkeypatch: pytest.MonkeyPatch, fault: Any) -> None:
    model = RewardModel(noisy(tiny(cache), "reward", head=True))
    sequences = [[1, 40, 41], [1, 50, 51, 52, 53], [1, 60]]
    assert batch_error(model, sequences) < 1e-5
    plain = RewardModel.scores
    faulty = lambda self, batch: plain(self, batch) + 0.1 * torch.tensor(fault(batch))  # noqa: E731
    monkeypatch.setattr(RewardModel, "scores", faulty)
    assert batch_error(model, sequences) == pytest.approx(0.1, abs=1e-4)


def test_the_help_teaches(run_align: Align) -> None:
    code, out, _ = run_align("reward-card", "--help")
    assert code == 0
    for part in (
        "RUN",
        "DATA",
        "--adapter",
        "--by",
        "--best-of",
        "--html",
        "--json",
        "align reward-card runs/quickstart",
    ):
        assert part in out
