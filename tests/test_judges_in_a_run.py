"""Every kind of judge in a whole run on the tiny model; what was asked isn't asked again; killed, it ends the same."""

import json
import math
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from transformers import AutoTokenizer, LlamaConfig, LlamaForSequenceClassification

from pipeline.evaluation.judges.protocol import Verdict, both_orders
from pipeline.lm.sources import resolve
from pipeline.rundir import RunDir, read_jsonl, summary
from pipeline.stages import evaluate, reward
from pipeline.stages.fit import fit
from pipeline.stages.inputs import open_run, read
from pipeline.stages.reward import split_pairs
from tests.conftest import Align
from tests.evaluation.endpoint_server import Server, longer, serve
from tests.lm.builders import SIZES
from tests.test_pipeline import align
from tests.test_resume import contents, killed

PAIRS = ["policy_vs_sft", "sft_vs_base"]
ASKED = 2 * 2 * 8  # orders, pairs, prompts


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serve(longer) as found:
        yield found


@pytest.fixture(scope="module")
def classifier(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("classifier")
    config = LlamaConfig(**SIZES, num_labels=1, bos_token_id=None, eos_token_id=2, pad_token_id=0)
    LlamaForSequenceClassification(config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(resolve("tiny", cache_dir=cache)).save_pretrained(folder)
    return folder


def judges(server: Server, classifier: Path, other: Path | None) -> dict[str, dict[str, Any]]:
    prices = {"price_per_million_input": 1.0, "price_per_million_output": 10.0}
    checks = [{"name": "vowel", "must": "[aeiou]"}, {"name": "same", "function": "operator:eq", "weight": 9.0}]
    found: dict[str, dict[str, Any]] = {
        "gpt": {"kind": "llm", "base_url": server.base_url, "model": "judge-model", "concurrency": 2, **prices},
        "base": {"kind": "llm_local"},
        "elsewhere": {"kind": "llm_local", "model": "tiny", "chat_template": "plain", "tie": 100.0},
        "rules": {"kind": "rubric", "checks": checks},
        "control": {"kind": "length", "prefer": "longer"},
        "published": {"kind": "reward_model", "model": str(classifier)},
        "careful": {"kind": "ensemble", "penalty": 0.5},
    }
    if other is not None:
        found["gold"] = {"kind": "reward_model", "run": str(other)}
    return found


def override(judges: dict[str, dict[str, Any]]) -> list[str]:
    text = yaml.safe_dump(judges, default_flow_style=True, width=100_000, sort_keys=False).strip()
    return [
        f"evaluate.judges={text}",
        f"evaluate.judge_pairs={json.dumps(PAIRS)}",
        "reward.judges=2",
        "lora.layers=upper",
    ]


@pytest.fixture(scope="module")
def other(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another run, as far as its reward models, whose adapters have another shape: it needs a base of its own."""
    folder = tmp_path_factory.mktemp("other") / "run"
    for stage in ("sft", "reward"):
        align(folder, cache, "seed=7", "lora.r=2", command=stage)
    return folder


@pytest.fixture(scope="module")
def run(cache: Path, server: Server, classifier: Path, other: Path, tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    folder = tmp_path_factory.mktemp("judged") / "run"
    return align(folder, cache, *override(judges(server, classifier, other)))


@pytest.fixture(scope="module")
def figures(run: RunDir) -> dict[str, Any]:
    return summary(run)


ROLES = ("reward", "judge")
NAMES = ("gpt", "base", "elsewhere", "rules", "control", "published", "careful", "gold")


@pytest.mark.parametrize("name", NAMES)
def test_every_judge_says_who_won(figures: dict[str, Any], name: str) -> None:
    for pair in PAIRS:
        rate = f"evaluate.judges.{name}.win_rate.{pair}"
        assert figures[f"{rate}_wins"] + figures[f"{rate}_ties"] + figures[f"{rate}_losses"] == 8
        assert 0 <= figures[f"{rate}_low"] <= figures[rate] <= figures[f"{rate}_high"] <= 1
    assert math.isfinite(figures[f"evaluate.judges.{name}.agreement_n"])


def test_only_judges_that_are_asked_in_orders_have_figures_of_them(figures: dict[str, Any]) -> None:
    for key in ("consistency", "first_position", "unparsable", "calls"):
        found = {name for name in NAMES if f"evaluate.judges.{name}.{key}" in figures}
        assert found == {"gpt", "base", "elsewhere"}, key
    assert [name for name in NAMES if f"evaluate.judges.{name}.cost" in figures] == ["gpt"]
    assert figures["evaluate.judges.gpt.cost"] == pytest.approx(ASKED * (100 * 1 + 10 * 10) / 1e6)
    assert (figures["evaluate.judges.gpt.calls"], figures["evaluate.judges.gpt.unparsable"]) == (ASKED, 0)
    assert figures["evaluate.judges.gpt.consistency"] == 1.0
    assert figures["evaluate.judges.elsewhere.win_rate.policy_vs_sft_ties"] == 8  # within 100 nats


def test_samples_carry_every_verdict(run: RunDir, figures: dict[str, Any]) -> None:
    rows = read_jsonl(run.path / "evaluate" / "samples.jsonl")
    assert all(set(row["verdicts"]) == {"judge", *NAMES} for row in rows)
    for name in NAMES:
        rate = figures[f"evaluate.judges.{name}.win_rate.policy_vs_sft"]
        assert sum(row["verdicts"][name] for row in rows) / 8 == pytest.approx(rate)
    for row in rows:
        texts = [row["answers"][system]["text"] for system in ("policy", "sft")]
        more = len(texts[0]) - len(texts[1])
        assert row["verdicts"]["gpt"] == (0.5 if more == 0 else float(more > 0))
        scores = [row["answers"][system]["judge"] for system in ("policy", "sft")]
        assert row["verdicts"]["judge"] == float(scores[0] > scores[1])


def test_both_members_of_the_ensemble_are_told(run: RunDir, figures: dict[str, Any]) -> None:
    assert set(run.require("reward").artifacts) == {"reward", "judge", "judge_2"}
    assert figures["reward.judge_2_train_pairs"] == figures["reward.judge_train_pairs"]
    folders = [run.artifact("reward", name) / "head.safetensors" for name in ("judge", "judge_2")]
    assert folders[0].read_bytes() != folders[1].read_bytes()


def test_each_judge_sees_the_pairs_in_an_order_of_its_own(
    run: RunDir, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first two keep the run's own seed, so that another member changes nothing for them."""
    seeds: dict[str, int] = {}

    def noted(*arguments: Any, name: str, seed: int, **options: Any) -> Any:
        seeds[name] = seed
        return fit(*arguments, name=name, seed=seed, **options)

    monkeypatch.setattr(reward, "fit", noted)
    shutil.copytree(run.path / "sft", tmp_path / "run" / "sft")
    again = align(tmp_path / "run", cache, "lora.layers=upper", "reward.judges=3", command="reward")
    assert seeds == {"reward": 0, "judge": 0, "judge_2": 1, "judge_3": 2}
    for name in ("reward", "judge", "judge_2"):
        heads = [one.artifact("reward", name) / "head.safetensors" for one in (run, again)]
        assert heads[0].read_bytes() == heads[1].read_bytes()


def test_the_report_has_a_row_for_each(run: RunDir) -> None:
    page = (run.path / "report.html").read_text(encoding="utf-8")
    kinds = ("llm", "llm_local", "llm_local", "rubric", "length", "reward_model", "ensemble", "reward_model")
    for name, kind in zip(NAMES, kinds, strict=True):
        assert f"{name} ({kind})" in page


def test_what_was_asked_is_not_asked_again(
    run: RunDir, server: Server, classifier: Path, other: Path, cache: Path, tmp_path: Path
) -> None:
    """Repeated from nothing but the replies, the evaluation is the same, and nobody is asked."""
    assert len(server.asked) == ASKED
    before = contents(run.path)
    copy = Path(shutil.copytree(run.path, tmp_path / "run"))
    shutil.rmtree(copy / "evaluate")
    again = align(copy, cache, *override(judges(server, classifier, other)), command="evaluate")
    assert server.requests == ASKED
    assert contents(again.path) == before


def test_another_state_of_the_other_run_repeats_the_evaluation(
    run: RunDir, server: Server, classifier: Path, other: Path, cache: Path, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(run.path, tmp_path / "run"))
    settings = override(judges(server, classifier, other))
    result = copy / "evaluate" / "result.json"
    written = result.stat().st_mtime_ns
    align(copy, cache, *settings, command="evaluate")
    assert result.stat().st_mtime_ns == written
    theirs = other / "reward" / "result.json"
    before = theirs.read_text(encoding="utf-8")
    theirs.write_text(json.dumps(json.loads(before) | {"fingerprint": "new"}), encoding="utf-8")
    try:
        align(copy, cache, *settings, command="evaluate")
    finally:
        theirs.write_text(before, encoding="utf-8")
    assert result.stat().st_mtime_ns != written


@pytest.mark.parametrize(
    ("judge", "expected"),
    [
        ("{kind: llm, base_url: 'http://x/v1', model: m, api_key_env: NO_SUCH_KEY}", "NO_SUCH_KEY isn't set"),
        ("{kind: reward_model, run: runs/no-such-run}", "no run at runs/no-such-run"),
        ("{kind: rubric, checks: [{name: a, function: 'no_such_module:f'}]}", "no_such_module:f can't be imported"),
    ],
)
def test_what_a_judge_lacks_is_told_before_anything_is_trained(
    run_align: Align, at_root: Path, cache: Path, tmp_path: Path, judge: str, expected: str
) -> None:
    arguments = [f"run_dir={tmp_path / 'run'}", f"model.cache_dir={cache}", "logging.progress=false"]
    code, _, err = run_align("run", "configs/smoke.yaml", *arguments, f"evaluate.judges.x={judge}")
    assert code == 2
    assert "".join(expected.split()) in "".join(err.split())
    assert not (tmp_path / "run" / "sft").exists()


def test_killed_among_its_judges_it_ends_with_the_same_bits(
    run: RunDir, server: Server, classifier: Path, other: Path, cache: Path, tmp_path: Path
) -> None:
    """Replies come slowly, so that processes are killed while they wait; only what was under way is asked again."""
    for stage in ("sft", "reward", "policy"):
        shutil.copytree(run.path / stage, tmp_path / "run" / stage)
    asked, server.seconds = len(server.asked), 0.02
    settings = [*override(judges(server, classifier, other)), "logging.progress=false", "checkpoint.seconds=0"]
    places = [f"run_dir={tmp_path / 'run'}", f"model.cache_dir={cache}"]
    points = killed(5, ["evaluate", "configs/smoke.yaml", *settings, *places], seed=1)
    server.seconds = 0.0
    assert len(points) >= 3
    assert len(server.asked) - asked <= ASKED + 2 * len(points)
    assert left(tmp_path / "run") == left(run.path)


def left(folder: Path) -> dict[str, Any]:
    """What a run leaves; a kill while a finished stage's checkpoints are cleared leaves some of them."""
    return {name: content for name, content in contents(folder).items() if "checkpoints" not in name}


def test_a_judge_that_has_spoken_is_not_asked_again_after_a_crash(
    run: RunDir, run_align: Align, at_root: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it said is in the checkpoint: asked again, this one would say something else."""
    calls: list[str] = []

    class Moody:
        def __init__(self, name: str) -> None:
            self.name = name

        def compare(self, pairs: Sequence[Any]) -> list[Verdict]:
            calls.append(self.name)
            if calls == ["one", "two"]:
                raise KeyboardInterrupt
            return [both_orders(float(len(calls) == 1), None if i else 0.5, float(i)) for i, _ in enumerate(pairs)]

    monkeypatch.setattr(evaluate, "build_judges", lambda *_: {name: Moody(name) for name in ("one", "two")})
    for stage in ("sft", "reward", "policy"):
        shutil.copytree(run.path / stage, tmp_path / "run" / stage)
    arguments = [f"run_dir={tmp_path / 'run'}", f"model.cache_dir={cache}", "logging.progress=false"]
    arguments += ["checkpoint.seconds=0", "reward.judges=2", "lora.layers=upper"]
    assert run_align("evaluate", "configs/smoke.yaml", *arguments)[0] == 130
    assert run_align("evaluate", "configs/smoke.yaml", *arguments)[0] == 0
    assert calls == ["one", "two", "two"]
    figures = RunDir(tmp_path / "run").require("evaluate").metrics
    assert figures["judges.one.cost"] == sum(range(8))
    rows = read_jsonl(tmp_path / "run" / "evaluate" / "samples.jsonl")
    assert [row["verdicts"]["one"] for row in rows] == [0.5] + [None] * 7


# ---- align judge --------------------------------------------------------------------------------------------

LABELLED = "data/quickstart/preferences.jsonl"


def asked(run_align: Align, run: RunDir, *extra: str) -> dict[str, Any]:
    code, out, err = run_align("judge", str(run.path), LABELLED, "--limit", "12", "--json", *extra)
    assert code == 0, err
    assert out.count("\n") == 1
    return json.loads(out)  # type: ignore[no-any-return]


def test_align_judge_asks_the_held_out_judge(run: RunDir, run_align: Align, at_root: Path) -> None:
    found = asked(run_align, run)
    assert (found["judge"], found["kind"], found["pairs"]) == ("judge", "reward_model", 12)
    assert found["right"] + found["ties"] + found["wrong"] == 12
    assert found["same_vs_same"] == 0.5
    assert asked(run_align, run, "--judge", "reward")["judge"] == "reward"


def test_align_judge_tells_what_the_judge_was_trained_on(run: RunDir, run_align: Align, at_root: Path) -> None:
    """The first 48 rows are this run's: each is the judge's, the reward model's, or for tests."""
    config, _ = open_run(run.path)
    pairs = read(config, config.reward.data, "preferences").rows
    parts = split_pairs(pairs, config.reward, config.seed)
    known = {name: {row.key for part in (name, f"{name}_validation") for row in parts[part]} for name in ROLES}
    for name in ROLES:
        expected = sum(row.key in known[name] for row in pairs[:12])
        assert asked(run_align, run, "--judge", name)["trained_on"] == expected
    assert asked(run_align, run, "--judge", "careful")["trained_on"] == asked(run_align, run)["trained_on"]
    assert "trained_on" not in asked(run_align, run, "--judge", "control")


def test_a_judge_of_another_run_on_the_same_base_is_that_judge(run: RunDir, run_align: Align, at_root: Path) -> None:
    myself = f"evaluate.judges.myself={{kind: reward_model, run: '{run.path}'}}"
    found, own = asked(run_align, run, myself, "--judge", "myself"), asked(run_align, run)
    for told in (found, own):
        told.pop("judge")
        told.pop("trained_on", None)
    assert found == own


def test_align_judge_asks_in_both_orders_and_not_again(
    run: RunDir, server: Server, run_align: Align, at_root: Path
) -> None:
    server.models.add("judge-model")
    found = asked(run_align, run, "--judge", "gpt")
    assert (found["calls"], found["unparsable"], found["consistency"]) == (48, 0, 1.0)
    before = server.requests
    assert asked(run_align, run, "--judge", "gpt") == found
    assert server.requests == before


def test_what_align_judge_shows(run: RunDir, run_align: Align, at_root: Path) -> None:
    code, out, _ = run_align("judge", str(run.path), LABELLED, "--limit", "6", "--judge", "base")
    assert code == 0
    for part in (
        "base (llm_local) on 6 pairs",
        "agrees with the labels",
        "stands first",
        "50 %, exactly",
        "of 24 replies",
    ):
        assert part in out


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((LABELLED, "--judge", "nobody"), "--judge 'nobody': this run has reward, judge, judge_2, gpt"),
        (("nowhere.jsonl",), "nowhere.jsonl"),
        (("data/quickstart/prompts.jsonl",), "prompts.jsonl"),
        ((LABELLED, "evaluate.judges.x={kind: nothing}"), "kind must be one of reward_model"),
    ],
)
def test_what_align_judge_cant_do_is_one_sentence(
    run: RunDir, run_align: Align, at_root: Path, arguments: tuple[str, ...], expected: str
) -> None:
    code, _, err = run_align("judge", str(run.path), *arguments)
    assert code == 2
    assert "".join(expected.split()) in "".join(err.split())
    assert "Traceback" not in err
