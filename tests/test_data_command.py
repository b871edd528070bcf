"""`align data`: what was planted in the files is what it says."""

import io
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from rich.console import Console

from pipeline.config import load_config
from pipeline.stages.doctor import Diagnosis, examine
from pipeline.terminal.blocks import BLOCKS
from pipeline.terminal.data import conversation, histogram, show_diagnosis
from tests.conftest import Align

WORDS = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]


def write(path: Path, rows: list[dict[str, Any] | str]) -> dict[str, str]:
    lines = (row if isinstance(row, str) else json.dumps(row) for row in rows)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return {"source": str(path)}


@pytest.fixture(scope="module")
def sick(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Path:
    """A config whose data has one of everything."""
    folder = tmp_path_factory.mktemp("sick")
    asked = [{"prompt": f"{word} question about the weather in {word}", "completion": "Rain."} for word in WORDS]
    sft = [*asked, asked[0], {"prompt": "empty", "completion": " "}, "{not json"]
    sft.append({"prompt": "two question about the weather in two now", "completion": "x" * 400})
    pairs: list[Any] = [
        {"prompt": f"{word} more", "chosen": "a much longer answer", "rejected": "short"} for word in WORDS
    ]
    pairs += [{"prompt": "one more", "chosen": "short", "rejected": "a much longer answer"}, pairs[1]]
    section = {
        "sft": {"data": write(folder / "sft.jsonl", sft), "max_length": 128},
        "reward": {"data": write(folder / "pairs.jsonl", pairs)},
        "policy": {"data": write(folder / "prompts.jsonl", [{"prompt": f"go {word}"} for word in WORDS])},
        "evaluate": {"data": write(folder / "eval.jsonl", [{"prompt": "GO  one"}, {"prompt": "elsewhere"}])},
    }
    config = {"model": {"name": "tiny", "cache_dir": str(cache)}, "logging": {"progress": False}, **section}
    path = folder / "sick.yaml"
    path.write_text(yaml.safe_dump(config | {"run_dir": str(folder / "run")}), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def found(sick: Path) -> Diagnosis:
    return examine(load_config(sick, ()))


def test_figures(found: Diagnosis) -> None:
    figures = found.figures()
    sft, reward = figures["sft"], figures["reward"]
    assert (sft["read"], sft["used"], sft["rejected"]) == (14, 12, 2)
    assert sft["reasons"] == {"empty answer": 1, "not JSON": 1}
    assert sft["equal_rows"] == 1
    assert sft["near_duplicate_prompts"] == 1
    assert sft["too_long"] == 1
    assert sft["answer_tokens"] == {"min": 6, "median": 6, "p95": 401, "max": 401}  # bytes and the end of turn
    assert reward["longer_wins"] == pytest.approx(11 / 12)
    assert reward["contradicting_pairs"] == 1
    assert reward["repeated_pairs"] == 1
    assert figures["policy"]["prompt_tokens"]["max"] > 0
    assert figures["leaks"] == {"policy and evaluate": 1}


def test_rows_that_were_turned_away_are_in_quarantine_with_line_and_reason(found: Diagnosis) -> None:
    assert found.quarantine is not None
    rows = [json.loads(line) for line in found.quarantine.read_text(encoding="utf-8").splitlines()]
    assert [(row["section"], row["where"], row["reason"]) for row in rows] == [
        ("sft", "sft.jsonl:12", "empty answer"),
        ("sft", "sft.jsonl:13", "not JSON"),
    ]


def test_what_the_terminal_says(found: Diagnosis) -> None:
    console = Console(width=200, record=True, file=io.StringIO())
    show_diagnosis(found, console)
    text = console.export_text()
    for part in (
        "empty answer 1, not JSON 1",
        "1 row says what another one says: sft.jsonl:1 and sft.jsonl:11",
        "sft.jsonl:2 and sft.jsonl:14",
        "the longer answer is chosen in 92%",
        "1 pair contradict",
        "1 prompt of policy in evaluate, too (1 equal, 0 nearly): what is reported would not be held out: prompts",
        "quarantine.jsonl",
    ):
        assert part in text


def test_taught_tokens_are_coloured_and_no_others(found: Diagnosis) -> None:
    assert found.preview is not None
    text = conversation(*found.preview)
    taught = "".join(text.plain[span.start : span.end] for span in text.spans if span.style == "green")
    assert taught == "Rain.<|im_end|>"
    assert "<|im_start|>user\none question" in text.plain


def test_a_histogram_shows_every_bin_that_is_not_empty() -> None:
    drawn = histogram(np.array([0] * 1000 + [99]), bins=4)
    assert drawn == f"{BLOCKS[-1]}  {BLOCKS[1]}"


def plain(cache: Path, folder: Path) -> list[str]:
    """Any config on the tiny model, whose tokens are bytes."""
    limits = ["sft.max_length=2000", "policy.max_prompt_length=2000", "reward.max_length=2000"]
    model = ["model.name=tiny", "model.sha256=null", f"model.cache_dir={cache}"]
    return [*model, *limits, f"run_dir={folder}", "logging.progress=false"]


def test_the_projects_own_data_is_healthy(at_root: Path, run_align: Align, cache: Path, tmp_path: Path) -> None:
    code, out, err = run_align("data", "configs/quickstart.yaml", "--json", *plain(cache, tmp_path))
    assert code == 0, err
    figures = json.loads(out)
    assert figures["leaks"] == {}
    assert figures["quarantine"] is None
    for name in ("sft", "reward", "policy", "evaluate"):
        assert figures[name]["rejected"] == figures[name]["equal_rows"] == figures[name]["too_long"] == 0
    assert figures["reward"]["contradicting_pairs"] == figures["reward"]["repeated_pairs"] == 0
    assert figures["reward"]["longer_wins_low"] < 0.5 < figures["reward"]["longer_wins_high"]


def test_bad_use_is_one_sentence(at_root: Path, run_align: Align, tmp_path: Path) -> None:
    code, _, err = run_align("data", "configs/smoke.yaml", f"sft.data.source={tmp_path}/nowhere.jsonl")
    assert code == 2
    assert "nowhere.jsonl" in err
    assert "Traceback" not in err


HH = Path(os.environ.get("ALIGN_DATASETS", "")) / "hh-rlhf-harmless.jsonl.gz"


@pytest.mark.skipif(not HH.is_file(), reason="needs this file in the folder that ALIGN_DATASETS names")
def test_real_preferences(at_root: Path, run_align: Align, cache: Path, tmp_path: Path) -> None:
    arguments = [*plain(cache, tmp_path), f"data_dir={HH.parent.resolve()}"]
    code, out, err = run_align("data", "configs/hh_harmless_cpu.yaml", "--json", *arguments)
    assert code == 0, err
    figures = json.loads(out)
    assert figures["reward"]["format"] == "hh_rlhf"
    assert figures["reward"]["used"] > 1000
    reward = figures["reward"]
    assert reward["longer_wins_low"] < reward["longer_wins"] < 0.5  # the shorter answer is the harmless one
    assert not any("evaluate" in sets for sets in figures["leaks"])
