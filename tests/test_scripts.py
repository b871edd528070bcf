"""The files under scripts/: each explains itself, and the benchmark's tables show what was measured."""

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

SCRIPTS = sorted((Path(__file__).parents[1] / "scripts").glob("*.py"))


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, SCRIPTS[0].parent / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_every_script_explains_itself(path: Path) -> None:
    done = subprocess.run([sys.executable, path, "--help"], capture_output=True, text=True, check=True)
    assert "usage" in done.stdout.lower()


def test_the_quickstart_tables_show_intervals_and_leave_out_what_was_not_measured() -> None:
    bench = load("bench_quickstart")
    figures = {
        "evaluate.win_rate.policy_vs_sft": 0.75,
        "evaluate.win_rate.policy_vs_sft_low": 0.6849,
        "evaluate.win_rate.policy_vs_sft_high": 0.805,
        "evaluate.win_rate.sft_vs_base": 1.0,
        "evaluate.win_rate.sft_vs_base_low": 0.98,
        "evaluate.win_rate.sft_vs_base_high": 1.0,
        "evaluate.kl": 4.04,
        "evaluate.mean_tokens.sft": 27.0,
        "evaluate.mean_tokens.policy": 30.5,
        "evaluate.eos_rate.policy": 0.985,
    }
    row = bench.outcomes({"ppo, seed 0": figures}).splitlines()[-1]
    assert row == "| ppo, seed 0 | .750 [.685, .805] | 1.000 [.980, 1.000] |  | 4.0 | 27.0 → 30.5 | 98.5 % |"


def test_growth_tells_the_exponent_between_points(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SCRIPTS[0].parent))
    bench = load("bench_growth")
    points = {
        str(n): {"median": {"total": 0.5 * n**1.5, "tokens": 10.0 * n}, "memory": {"peak_mb": 2000.0}} for n in (4, 8)
    }
    (first, second) = zip(*(column.cells for column in bench.table("completions", points).columns), strict=True)
    assert first == ("4", "4.00", "100.0", "", "2,000", "")
    assert second == ("8", "11.31", "141.4", "n^1.50", "2,000", "n^0.00")


def test_growth_measures_what_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """Along an axis one setting changes, and a point's label is its value."""
    monkeypatch.syspath_prepend(str(SCRIPTS[0].parent))
    bench = load("bench_growth")
    for axis, key in (
        ("completions", "prompts_per_step"),
        ("length", "sampling.max_new_tokens"),
        ("group", "group_size"),
    ):
        for value, (_, _, settings) in bench.AXES[axis].points.items():
            assert f"policy.{key}={value}" in settings


def test_asking_takes_turns_and_its_heads_are_scikit_learns() -> None:
    bench = load("bench_asking")
    assert bench.chosen("mix", [5, 4, 3, 2, 1, 0], [0, 1, 2, 3, 4, 5], [5, 0], 3) == [4, 1, 3]
    assert bench.chosen("random", [5, 4], [0, 1, 2], [0], 2) == [1, 2]
    generator = np.random.default_rng(0)
    x = generator.normal(size=(60, 5)) + 0.3
    weights = generator.multinomial(60, np.full(60, 1 / 60), 2).astype(float)
    for found, weight in zip(bench.heads(x, weights), weights, strict=True):
        mirrored = LogisticRegression(C=1 / bench.PENALTY, fit_intercept=False, tol=1e-9)
        mirrored.fit(np.concatenate([x, -x]), [1] * 60 + [0] * 60, np.tile(weight / 2, 2))
        assert found == pytest.approx(mirrored.coef_[0], abs=1e-4)


def test_asking_tells_when_a_target_is_reached() -> None:
    bench = load("bench_asking")
    rise = np.linspace(0.5, 0.9, len(bench.COUNTS))
    middle = (bench.COUNTS[4] + bench.COUNTS[5]) / 2
    assert bench.reached(rise, (rise[4] + rise[5]) / 2) == pytest.approx(middle)
    assert bench.reached(rise, 0.95) == float("inf")
    assert bench.labels_for(np.stack([rise, rise]), 0.95) == (float("inf"),) * 3
