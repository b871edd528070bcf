"""AlpacaEval's files and figures, on rows made by hand; on real ones where a file of theirs is given."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.evaluation.alpaca import (
    AlpacaError,
    Annotation,
    Output,
    outputs_of,
    read_annotations,
    read_outputs,
    write_outputs,
)
from pipeline.evaluation.intervals import mean_interval
from pipeline.evaluation.leaderboard import Leaderboard, leaderboard

Write = Callable[[Any], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def call(rows: Any) -> Path:
        path = tmp_path / "annotations.json"
        path.write_text(rows if isinstance(rows, str) else json.dumps(rows), encoding="utf-8")
        return path

    return call


def row(preference: Any, **changes: Any) -> dict[str, Any]:
    return {
        "instruction": "Why?",
        "output_1": "Because.",
        "output_2": "Who knows",
        "generator_1": "base",
        "generator_2": "mine",
        "dataset": "made by hand",
        "annotator": "me",
        "preference": preference,
    } | changes


PREFERENCES = (2, 1, 1.5, 0, None, 1.9, float("nan"), 1)


def found(write: Write, *preferences: Any, **options: Any) -> Leaderboard:
    return leaderboard(read_annotations(write([row(p) for p in preferences])), **options)


def test_the_figures_by_hand(write: Write) -> None:
    """Shares (1, 0, .5, .5, .9, 0): mean .483333; squares sum to 2.31, SD √((2.31 − 6 · .233611)/5) = .426224, / √6."""
    line = found(write, *PREFERENCES)
    assert (line.system, line.baseline) == ("mine", "base")
    assert line.win_rate == pytest.approx(48.3333, abs=1e-4)
    assert line.standard_error == pytest.approx(17.4005, abs=1e-4)
    assert (line.n, line.n_wins, line.n_wins_base, line.n_draws, line.n_without_verdict) == (6, 2, 2, 2, 2)
    assert (line.low, line.high) == pytest.approx(100 * np.array(mean_interval([1, 0, 0.5, 0.5, 0.9, 0])))
    assert (line.mean_length, line.mean_length_base) == (9, 8)


def test_a_row_has_no_standard_error(write: Write) -> None:
    line = found(write, 2)
    assert (line.win_rate, line.standard_error, line.n) == (100, None, 1)
    json.dumps(line.figures(), allow_nan=False)


def test_the_json_keys(write: Write) -> None:
    figures = found(write, *PREFERENCES).figures()
    assert list(figures) == [
        *("system", "baseline", "win_rate", "standard_error", "low", "high"),
        *("n", "n_wins", "n_wins_base", "n_draws", "n_without_verdict", "mean_length", "mean_length_base"),
        *("length_controlled_win_rate", "length_controlled_low", "length_controlled_high", "length_overlap"),
    ]
    assert figures["length_controlled_win_rate"] == pytest.approx(48.3333, abs=1e-4)  # all are longer by one


def test_a_judge_that_loves_length_is_seen_through(write: Write) -> None:
    rng = np.random.default_rng(0)
    extra = rng.normal(60, 40, 400).astype(int)
    likes = rng.random(400) < 1 / (1 + np.exp(-extra / 15))
    texts = [{"output_1": "x" * 300, "output_2": "x" * int(300 + by)} for by in extra]
    rows = [row(2 if like else 1, **text) for like, text in zip(likes, texts, strict=True)]
    line = leaderboard(read_annotations(write(rows)), resamples=200)
    assert line.win_rate > 85
    assert line.length_controlled.rate == pytest.approx(0.5, abs=0.12)


def test_either_side_can_be_asked_about(write: Write) -> None:
    mine, base = found(write, *PREFERENCES), found(write, *PREFERENCES, system="base")
    assert (base.system, base.baseline) == ("base", "mine")
    assert base.win_rate == pytest.approx(100 - mine.win_rate)
    assert base.standard_error == pytest.approx(mine.standard_error)
    assert (base.n_wins, base.n_wins_base, base.mean_length) == (mine.n_wins_base, mine.n_wins, mine.mean_length_base)
    with pytest.raises(AlpacaError, match="there is no 'yours'; the verdicts are about base and mine"):
        found(write, *PREFERENCES, system="yours")


def test_rows_the_other_way_round_are_turned(write: Write) -> None:
    swapped = {"generator_1": "mine", "generator_2": "base", "output_1": "Who knows", "output_2": "Because."}
    mixed = [row(2), row(1, **swapped), row(1.25, **swapped), row(None, **swapped)]
    line = leaderboard(read_annotations(write(mixed)))
    plain = found(write, 2, 2, 1.75, None)
    assert line == plain
    assert (line.win_rate, line.mean_length) == (pytest.approx(100 * 2.75 / 3), 9)


def test_a_model_against_itself_is_one_half(write: Write) -> None:
    line = leaderboard(read_annotations(write([row(1.5, generator_1="mine")] * 20)))
    assert (line.win_rate, line.standard_error, line.n_draws) == (50, 0, 20)


def test_a_third_system_is_refused(write: Write) -> None:
    with pytest.raises(AlpacaError, match="row 2 compares base with theirs, row 1 base with mine: give one file"):
        leaderboard(read_annotations(write([row(1), row(1, generator_2="theirs")])))


def test_no_verdict_at_all_is_refused(write: Write) -> None:
    with pytest.raises(AlpacaError, match="every preference is null"):
        found(write, None, None)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("[{", "annotations.json isn't JSON"),
        ({"preference": 1}, "holds a JSON object; AlpacaEval's files hold one list"),
        ([], "holds an empty list"),
        ([row(1), 7], "annotations.json, row 2: is a JSON number, not an object"),
        ([row(1), {"instruction": "x"}], "row 2: has no 'output_1', only instruction"),
        ([row(1, output_2=None)], "row 1: output_2 is a JSON null, not text"),
        ([{k: v for k, v in row(1).items() if k != "preference"}], "row 1: has no 'preference'"),
        ([row(1), row(1), row(2.5)], "row 3: preference is 2.5; it must lie between 1"),
        ([row(-1)], "row 1: preference is -1"),
        ([row(0.5)], "row 1: preference is 0.5"),
        ([row("1")], "row 1: preference is '1'"),
        ([row(True)], "row 1: preference is True"),
    ],
)
def test_what_is_no_annotation_is_told_in_a_sentence(write: Write, rows: Any, message: str) -> None:
    with pytest.raises(AlpacaError, match=message.replace("(", r"\(")):
        read_annotations(write(rows))


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(AlpacaError, match=r"no file at .*nowhere\.json"):
        read_annotations(tmp_path / "nowhere.json")


def test_an_old_zero_is_a_tie(write: Write) -> None:
    assert [r.preference for r in read_annotations(write([row(0), row(1.5), row(2)]))] == [1.5, 1.5, 2.0]
    assert read_annotations(write([row(2)])) == [Annotation("Why?", "Because.", "Who knows", "base", "mine", 2.0)]


# ---- outputs ----------------------------------------------------------------------------------------------------


def test_outputs_survive_the_way_there_and_back(tmp_path: Path) -> None:
    outputs = [Output("Why?", "Weil «ü»\n", "mine", "helpful"), Output("Who?", "", "mine")]
    write_outputs(tmp_path / "out.json", outputs)
    assert read_outputs(tmp_path / "out.json") == outputs
    rows = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    assert list(rows[0]) == ["instruction", "output", "generator", "dataset"]
    (tmp_path / "out.json").write_text('[{"instruction": "x"}]', encoding="utf-8")
    with pytest.raises(AlpacaError, match="row 1: has no 'output', only instruction"):
        read_outputs(tmp_path / "out.json")


def test_a_runs_answers_become_outputs() -> None:
    rows = [
        {"prompt": "Why?", "category": "short", "answers": {"sft": {"text": "No."}, "policy": {"text": "Yes!"}}},
        {"prompt": "Who?", "category": None, "answers": {"sft": {"text": "You."}, "policy": {"text": "Me."}}},
    ]
    assert outputs_of(rows, "policy", "my model") == [
        Output("Why?", "Yes!", "my model", "short"),
        Output("Who?", "Me.", "my model", ""),
    ]
    with pytest.raises(AlpacaError, match="no answers of 'critic', only those of sft, policy"):
        outputs_of(rows, "critic", "x")


# ---- real verdicts ----------------------------------------------------------------------------------------------


@pytest.mark.skipif(
    "ALIGN_ALPACA_ANNOTATIONS" not in os.environ,
    reason="ALIGN_ALPACA_ANNOTATIONS names no annotations.json of alpaca-7b against GPT-4 turbo (AlpacaEval 2)",
)
def test_the_published_line_of_alpaca_7b() -> None:
    """weighted_alpaca_eval_gpt4_turbo_leaderboard.csv: 2.5915 ± .4871, 17 wins, 785 losses, 3 draws of 805."""
    line = leaderboard(read_annotations(Path(os.environ["ALIGN_ALPACA_ANNOTATIONS"])), resamples=100)
    assert (line.system, line.baseline) == ("alpaca-7b", "gpt4_1106_preview")
    assert line.win_rate == pytest.approx(2.591450540223603, abs=1e-9)
    assert line.standard_error == pytest.approx(0.4870855382635108, abs=1e-9)
    assert (line.n_wins, line.n_wins_base, line.n_draws, line.n) == (17, 785, 3, 805)
    assert int(line.mean_length) == 396
