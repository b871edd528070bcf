"""What the report says in words: never more than the intervals allow."""

from pathlib import Path
from typing import Any

import pytest

from pipeline.report.charts import running_mean
from pipeline.report.headline import cautions, headline
from pipeline.report.load import load
from pipeline.report.samples import spread
from pipeline.report.wording import duration, interval, local_paths_shortened, megabytes, number, percent

from .builder import build


def sentences(path: Path, **options: Any) -> tuple[str, str]:
    """Headline and cautions of a run, with plain spaces."""
    run = load(build(path, steps=2, **options))
    return headline(run).replace("\u00a0", " "), " ".join(cautions(run)).replace("\u00a0", " ")


def test_better(tmp_path: Path) -> None:
    sentence, care = sentences(tmp_path)
    assert sentence == "The policy beats SFT on 78 % [72, 83] of 200 prompts; answers are 4 % shorter; KL 6.1."
    assert care == ""


def test_worse(tmp_path: Path) -> None:
    sentence, _ = sentences(tmp_path, policy_wins=0.3)
    assert sentence.startswith("The policy is worse than SFT: it wins on 30 % [24, 37] of 200 prompts;")


def test_not_shown(tmp_path: Path) -> None:
    sentence, care = sentences(tmp_path, policy_wins=0.54)
    start = (
        "Nothing is shown: the policy wins on 54 % [47, 61] of 200 prompts against SFT, and the interval includes 50 %;"
    )
    assert sentence.startswith(start)
    assert "With 200 prompts, only a win rate of 60 % or more would be told from chance (80 % power)." in care


def test_few_prompts_are_called_few_even_when_the_policy_wins(tmp_path: Path) -> None:
    sentence, care = sentences(tmp_path, prompts=20, policy_wins=0.9)
    assert sentence.startswith("The policy beats SFT on 90 % [70, 97] of 20 prompts")
    assert "With 20 prompts, only a win rate of 81 % or more" in care


@pytest.mark.parametrize(
    ("wins", "words"), [(0.5, "SFT does not beat the base model"), (0.2, "SFT is worse than the base model")]
)
def test_sft_must_beat_the_base_model(tmp_path: Path, wins: float, words: str) -> None:
    assert words in sentences(tmp_path, sft_wins=wins)[1]


FOUND = {"": 0.4, "_low": 0.33, "_high": 0.47, "_wins": 80, "_ties": 0, "_losses": 120, "_n": 200}
WORSE_THAN_DPO = {f"win_rate.policy_vs_dpo{key}": value for key, value in FOUND.items()}


@pytest.mark.parametrize(
    ("metrics", "words"),
    [
        ({"judge": "reward"}, "The judge is the reward model that the policy was trained on"),
        ({"eos_rate.policy": 0.4}, "Only 40 % of the policy's answers end by themselves"),
        ({"win_rate.policy_vs_best_of_n_high": 0.45}, "Taking the best of 4 SFT answers does better"),
        ({"judge": "rewards"}, "The judge is what the policy was paid for"),
        (WORSE_THAN_DPO, "DPO on the reward model's pairs does better than the policy, which wins on 40 % [33, 47]"),
    ],
)
def test_what_to_be_careful_about(tmp_path: Path, metrics: dict[str, Any], words: str) -> None:
    assert words in sentences(tmp_path, metrics=metrics)[1]


@pytest.mark.parametrize(
    ("tokens", "words"),
    [(33.4, "answers are as long;"), (50.1, "answers are 50 % longer;"), (33.6, "as long;")],
)
def test_length_in_words(tmp_path: Path, tokens: float, words: str) -> None:
    assert words in sentences(tmp_path, metrics={"mean_tokens.policy": tokens})[0]


def test_a_bound_next_to_one_half_keeps_its_side() -> None:
    assert interval(0.57, 0.503, 0.637) == "57.0\u00a0% [50.3,\u00a063.7]"
    assert interval(0.57, 0.51, 0.637) == "57\u00a0% [51,\u00a064]"


def test_numbers_read_well() -> None:
    assert number(-1.234) == "−1.23"
    assert number(-0.001) == "0.00"
    assert number(None) == percent(None) == duration(None) == megabytes(None) == "–"
    told = [duration(s).replace("\u00a0", " ") for s in (0.0063, 0.04, 4.38, 59.97, 260, 3599.7, 4321)]
    assert told == ["0.006 s", "0.04 s", "4.4 s", "1 min 0 s", "4 min 20 s", "1 h 0 min", "1 h 12 min"]
    assert megabytes(556.4) == "556\u00a0MB"
    assert megabytes(1240) == "1.2\u00a0GB"


def test_absolute_paths_lose_their_folders() -> None:
    given = {"a": "/home/me/data.jsonl", "b": ["C:\\me\\data.csv", "data/x.jsonl", "~/y"], "c": 3}
    assert local_paths_shortened(given) == {
        "a": "…/data.jsonl",
        "b": ["…/data.csv", "data/x.jsonl", "…/y"],
        "c": 3,
    }


def test_samples_are_spread_evenly() -> None:
    assert spread(range(101), 5) == [0, 25, 50, 75, 100]
    assert spread(range(3), 5) == [0, 1, 2]
    assert len(set(spread(range(200), 40))) == 40


def test_a_running_mean_keeps_straight_lines() -> None:
    line = [(float(i), 2.0 * i) for i in range(60)]
    assert running_mean(line)[0][0] == 3.0
    assert running_mean(line)[-1][0] == 56.0
    assert all(y == pytest.approx(2 * x) for x, y in running_mean(line))
