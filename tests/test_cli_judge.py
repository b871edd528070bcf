"""`align winrate` and `align outputs`."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.rundir import RunDir

Align = Callable[..., tuple[int, str, str]]
ROOT = Path(__file__).parents[1]


@pytest.fixture
def annotations(tmp_path: Path) -> Path:
    """20 verdicts of 30 for `mine`, whose answers are longer, 3 without one."""
    names = {"instruction": "?", "generator_1": "base", "generator_2": "mine"}
    rows = [
        names | {"output_1": "x" * 40, "output_2": "x" * (40 + i), "preference": p}
        for i, p in enumerate([2] * 18 + [1] * 8 + [1.5] * 4 + [None] * 3)
    ]
    path = tmp_path / "annotations.json"
    path.write_text(json.dumps(rows), encoding="utf-8")
    return path


def test_winrate_shows_percent_names_and_what_to_beware_of(run_align: Align, annotations: Path) -> None:
    code, out, err = run_align("winrate", str(annotations))
    assert (code, err) == (0, "")
    for part in ("mine against base", "66.667", "30 verdicts, 3 more without a verdict", "18 for mine", "4 ties"):
        assert part in out
    assert "extrapolation" in out  # every answer is longer


def test_winrate_as_json_is_one_line(run_align: Align, annotations: Path) -> None:
    code, out, _ = run_align("winrate", str(annotations), "--json")
    assert (code, out.count("\n")) == (0, 1)
    figures = json.loads(out)
    assert figures["win_rate"] == pytest.approx(100 * 20 / 30)
    assert (figures["n"], figures["n_wins"], figures["n_wins_base"], figures["n_draws"]) == (30, 18, 8, 4)
    assert figures["low"] < figures["win_rate"] < figures["high"]
    _, out, _ = run_align("winrate", str(annotations), "--json", "--system", "base")
    assert json.loads(out)["win_rate"] == pytest.approx(100 * 10 / 30)


def test_winrate_says_when_length_tells_all(run_align: Align, tmp_path: Path) -> None:
    names = {"instruction": "?", "generator_1": "base", "generator_2": "mine"}
    rows = [names | {"output_1": "x" * 10, "output_2": "x" * n, "preference": 1 + (n > 10)} for n in (5, 6, 14, 15)]
    path = tmp_path / "annotations.json"
    path.write_text(json.dumps(rows), encoding="utf-8")
    _, out, _ = run_align("winrate", str(path))
    assert "nothing is known about answers of equal length" in " ".join(out.split())


@pytest.mark.parametrize(
    ("text", "part"),
    [('{"a": 1}', "hold one list of rows"), ("[{}]", "row 1: has no 'instruction'"), ("nonsense", "isn't JSON")],
)
def test_a_bad_file_is_one_sentence(run_align: Align, tmp_path: Path, text: str, part: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(text, encoding="utf-8")
    code, out, err = run_align("winrate", str(path))
    assert (code, out, err.count("error: ")) == (2, "", 1)
    assert part in " ".join(err.split())


def test_winrate_loads_no_model_code(annotations: Path) -> None:
    """Verdicts are arithmetic: an answer in a second, without torch."""
    script = (
        "import sys\n"
        "from pipeline.cli import main\n"
        "try:\n    main(sys.argv[1:])\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'transformers', 'datasets', 'sklearn', 'pandas', 'matplotlib'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)\n"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    for options in ([], ["--json"]):
        command = [sys.executable, "-c", script, "winrate", str(annotations), *options]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


def test_outputs_are_written_as_alpaca_eval_reads_them(run_align: Align, tmp_path: Path) -> None:
    run = RunDir(tmp_path / "my-run")
    stage = run.open_stage("evaluate", "mark")
    stage.sample(
        {"prompt": f"p{i}", "category": "c", "answers": {"sft": {"text": "s"}, "policy": {"text": f"a{i}"}}}
        for i in range(2)
    )
    path = tmp_path / "out.json"
    code, _, err = run_align("outputs", str(run.path), "--out", str(path))
    assert code == 2  # not finished yet
    assert "no finished evaluate stage" in " ".join(err.split())
    stage.finish({})
    code, out, _ = run_align("outputs", str(run.path), "--out", str(path))
    assert code == 0
    assert "2 answers of policy as my-run-policy" in " ".join(out.split())
    assert json.loads(path.read_text(encoding="utf-8"))[1] == {
        "instruction": "p1",
        "output": "a1",
        "generator": "my-run-policy",
        "dataset": "c",
    }
    run_align("outputs", str(run.path), "--system", "sft", "--generator", "mine", "--out", str(path))
    assert {(row["output"], row["generator"]) for row in json.loads(path.read_text(encoding="utf-8"))} == {
        ("s", "mine")
    }
    code, _, err = run_align("outputs", str(run.path), "--system", "critic", "--out", str(path))
    assert (code, "only those of sft, policy" in " ".join(err.split())) == (2, True)
    code, _, err = run_align("outputs", str(run.path), "--out", str(tmp_path / "nowhere" / "out.json"))
    assert (code, err.count("error: ")) == (2, 1)


@pytest.mark.parametrize(
    ("command", "parts"),
    [
        ("winrate", ["ANNOTATIONS.json", "--system", "--json", "preference", "percent"]),
        ("outputs", ["RUN", "--system", "--out", "--generator", "model_outputs.json"]),
    ],
)
def test_the_help(run_align: Align, command: str, parts: list[str]) -> None:
    code, out, _ = run_align(command, "--help")
    assert code == 0
    assert not [part for part in parts if part not in out]
