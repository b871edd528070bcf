"""Do 95 percent intervals hold the truth 95 times in 100? Several kinds, on simulated evaluations whose truth is known.

    python scripts/check_intervals.py
    python scripts/check_intervals.py --simulations 10000 --kinds chosen t --json FILE

Evaluations of 30 to 500 prompts. True win rates are drawn evenly from .5–.6, …, .8–.9, since on a few dozen coin flips
the coverage at any one rate jumps by percents (Brown, Cai & DasGupta 2001). None, a fifth or two fifths are ties, or as
many as the rate leaves room for. A prompt has one sample, or up to five that agree more than chance. A cell is one such
setting. Shown are the mean over cells, the lowest and highest cell, and how many are outside of 93.5–96.5 percent. Two
more tables: the difference of two win rates on the same prompts, and the win rate at equal length.
"""

import argparse
import json
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy.special import expit, ndtr, ndtri, stdtrit

from pipeline.evaluation.intervals import mean_interval, score_interval
from pipeline.evaluation.length_control import length_controlled

Span = tuple[np.ndarray, np.ndarray]
PROMPTS = (30, 50, 100, 200, 500)
RATES = ((0.5, 0.6), (0.6, 0.7), (0.7, 0.8), (0.8, 0.9))
TIES = (0.0, 0.2, 0.4)
SAMPLES = {"1": (1, 0.0), "3, ρ .3": (3, 0.3), "5, ρ .3": (5, 0.3), "5, ρ .7": (5, 0.7), "1–5, ρ .3": (-5, 0.3)}
NEAR = 0.015


def simulate(
    evaluations: int,
    prompts: int,
    rates: tuple[float, float],
    tie: float,
    samples: tuple[int, float],
    rng: np.random.Generator,
    systems: int = 1,
) -> tuple[np.ndarray, np.ndarray]:
    """True win rates, [systems, evaluations], and mean outcomes, [systems, evaluations, prompts].

    A sample repeats what its prompt decides with probability √ρ, and is drawn by itself otherwise: two samples of a
    prompt correlate with ρ, and so do those of two systems of equal rate. `samples` = (most a prompt, ρ); a negative
    number means that each prompt has from 1 to so many.
    """
    most, correlation = abs(samples[0]), samples[1]
    rate = rng.uniform(*rates, (systems, evaluations))
    ties = np.minimum(tie, 2 * (1 - rate))[..., None, None]
    wins = rate[..., None, None] - ties / 2
    shape = (systems, evaluations, prompts, most)
    common = rng.random((1, evaluations, prompts, 1))
    drawn = np.where(rng.random(shape) < np.sqrt(correlation), common, rng.random(shape))
    outcomes = (drawn < wins) + 0.5 * ((drawn >= wins) & (drawn < wins + ties))
    sizes = rng.integers(1, most + 1, shape[:3]) if samples[0] < 0 else np.full(shape[:3], most)
    kept = np.arange(most) < sizes[..., None]
    return rate, (outcomes * kept).sum(-1) / sizes


def student(x: np.ndarray) -> Span:
    """m ± t · s/√n."""
    half = stdtrit(x.shape[1] - 1, 0.975) * x.std(1, ddof=1) / np.sqrt(x.shape[1])
    return x.mean(1) - half, x.mean(1) + half


def bootstraps(x: np.ndarray, rng: np.random.Generator, resamples: int) -> dict[str, Span]:
    """Percentile, BCa (Efron 1987) and bootstrap-t (Efron 1981), all from the same resamples."""
    n = x.shape[1]
    counts = rng.multinomial(n, np.full(n, 1 / n), resamples).T / n  # [n, resamples]
    means, mean = x @ counts, x.mean(1, keepdims=True)
    deviation = np.sqrt(np.maximum((x**2) @ counts - means**2, 0))
    t = np.where(deviation > 0, (means - mean) / np.maximum(deviation, 1e-12), np.nan)
    low, high = np.nanquantile(np.where(np.isnan(t).all(1, keepdims=True), 0.0, t), [0.975, 0.025], axis=1)
    ordered = np.sort(means, axis=1)
    percentile = ordered[:, int(0.025 * resamples)], ordered[:, int(0.975 * resamples) - 1]
    below = ((means < mean).mean(1) + (means <= mean).mean(1)) / 2
    bias = ndtri(np.clip(below, 1 / resamples, 1 - 1 / resamples))
    spread = ((x - mean) ** 2).sum(1)
    acceleration = ((x - mean) ** 3).sum(1) / (6 * np.maximum(spread, 1e-12) ** 1.5)
    rows = np.arange(len(x))
    bca = []
    for z in (ndtri(0.025), ndtri(0.975)):
        share = ndtr(bias + (bias + z) / (1 - acceleration * (bias + z)))
        bca.append(ordered[rows, np.clip((share * resamples).astype(int), 0, resamples - 1)])
    scale = x.std(1)
    return {
        "percentile bootstrap": percentile,
        "BCa bootstrap": (bca[0], bca[1]),
        "bootstrap-t": (mean[:, 0] - low * scale, mean[:, 0] - high * scale),
    }


def wilson(x: np.ndarray) -> Span:
    """Wilson's interval as though each prompt were one win or loss."""
    return score_interval(x.mean(1), x.shape[1], ndtri(0.975))


PLAIN: dict[str, Callable[[np.ndarray], Span]] = {
    "chosen": mean_interval,
    "Wilson on n prompts": wilson,
    "t": student,
}
KINDS = (*PLAIN, "percentile bootstrap", "BCa bootstrap", "bootstrap-t")
Cells = dict[str, dict[str, list[float]]]  # kind -> prompts -> coverage by cell


def win_rates(simulations: int, resamples: int, kinds: list[str], seed: int) -> Cells:
    """Coverage of a win rate's interval."""
    rng = np.random.default_rng(seed)
    found: Cells = {kind: {} for kind in kinds}
    for n, rates, tie, samples in product(PROMPTS, RATES, TIES, SAMPLES.values()):
        (truth,), (means,) = simulate(simulations, n, rates, tie, samples, rng)
        spans = {kind: PLAIN[kind](means) for kind in kinds if kind in PLAIN}
        if len(spans) < len(kinds):
            spans |= bootstraps(means, rng, resamples)
        for kind in kinds:
            low, high = spans[kind]
            found[kind].setdefault(str(n), []).append(float(((low <= truth) & (truth <= high)).mean()))
    return found


def differences(simulations: int, seed: int) -> Cells:
    """Coverage of the difference of two win rates on the same prompts, both drawn from the same range of rates."""
    rng = np.random.default_rng(seed)
    found: Cells = {"chosen": {}, "t": {}}
    for n, rates, tie, samples in product(PROMPTS, RATES, TIES, SAMPLES.values()):
        truth, means = simulate(simulations, n, rates, tie, samples, rng, systems=2)
        shifted = (means[0] - means[1] + 1) / 2
        for kind in found:
            low, high = PLAIN[kind](shifted)
            inside = (2 * low - 1 <= truth[0] - truth[1]) & (truth[0] - truth[1] <= 2 * high - 1)
            found[kind].setdefault(str(n), []).append(float(inside.mean()))
    return found


def equal_lengths(simulations: int, seed: int) -> Cells:
    """Coverage of the win rate at equal length, σ(α); differences z ~ N(μ, 1), P(win) = σ(α + βz)."""
    rng = np.random.default_rng(seed)
    found: Cells = {"chosen": {}}
    for n, mean, (alpha, beta) in product((50, 100, 300), (0.0, 0.7, 1.5), ((0, 1), (1, 1), (0.5, 0))):
        inside = 0
        for _ in range(simulations):
            longer = rng.normal(mean, 1, n)
            wins = rng.random(n) < expit(alpha + beta * longer)
            rate = length_controlled([[float(w)] for w in wins], longer[:, None].tolist(), resamples=400)
            inside += rate.low <= expit(alpha) <= rate.high
        found["chosen"].setdefault(str(n), []).append(inside / simulations)
    return found


def table(title: str, cells: Cells) -> Table:
    """A line a kind; by number of prompts the mean, lowest and highest cell in percent; cells that are off."""
    shown = Table("interval", *next(iter(cells.values())), "off", title=title, title_justify="left")
    for kind, by_prompts in cells.items():
        every = np.concatenate(list(by_prompts.values()))
        spans = [f"{100 * np.mean(v):.1f} ({100 * min(v):.1f}–{100 * max(v):.1f})" for v in by_prompts.values()]
        shown.add_row(kind, *spans, f"{int((abs(every - 0.95) > NEAR).sum())} of {len(every)}")
    return shown


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--simulations", type=int, default=4000, help="evaluations a cell; a tenth at equal length")
    parser.add_argument("--resamples", type=int, default=1000, help="of the bootstraps")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS), metavar="KIND", help=", ".join(KINDS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write each cell's coverage")
    arguments = parser.parse_args()
    found: dict[str, Any] = {
        "Win rate": win_rates(arguments.simulations, arguments.resamples, arguments.kinds, arguments.seed),
        "Difference of two win rates": differences(arguments.simulations, arguments.seed),
        "Win rate at equal length": equal_lengths(max(1, arguments.simulations // 10), arguments.seed),
    }
    for title, cells in found.items():
        Console(width=200).print(table(f"{title}: coverage in %, mean over cells (lowest–highest), by prompts", cells))
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
