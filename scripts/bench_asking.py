"""How many labels does each way of asking need for the same reward accuracy? A simulation on pairs whose labels exist.

    python scripts/bench_asking.py configs/quickstart.yaml --features FILE.npz --json FILE.json --figure docs/asking.png
    python scripts/bench_asking.py configs/quickstart.yaml --features FILE.npz --noise 0.2

Each text is read once by the base model, adapters off (kept in --features); its features are the final hidden state at
the end of turn and the mean over the answer, as the first principal components of the pairs' differences. What is
trained as labels come in is a Bradley–Terry head on them and an ensemble of such heads on bootstrap resamples: the head
only, no adapter. Pairs are split by prompt into a pool, whose labels are revealed in the order that a strategy asks
for, and a test part. The first labels are at random; then the ensemble is trained anew at every count of labels shown.
"""

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from pipeline.evaluation.agreement import disagreement
from pipeline.progress import bar

Array = NDArray[np.float64]
COUNTS = (20, 40, 60, 80, 120, 160, 240, 320, 480)  # labels at which heads are trained anew
SHOWN = (40, 80, 160, 320, 480)  # in the table
TARGETS = (0.70, 0.73)
COMPONENTS = 300
MEMBERS = 8
PENALTY = 10.0  # of the ridge, on components whose largest has deviation 1
TEST = 1 / 3
STRATEGIES = ("random", "disagreement", "mix")
COLOURS = dict(zip(STRATEGIES, ("#4477aa", "#ee6677", "#228833"), strict=True))  # Tol's bright scheme


@dataclass(frozen=True)
class Pairs:
    """Differences of features, chosen less rejected, [n, d], and the prompt of each pair as a number [n]."""

    differences: Array
    prompts: NDArray[np.int64]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path, help="a config with preference pairs, such as configs/quickstart.yaml")
    parser.add_argument("--features", type=Path, required=True, metavar="FILE.npz", help="made where there is none")
    parser.add_argument("--seeds", type=int, default=20, help="splits, each with every strategy")
    parser.add_argument("--noise", type=float, default=0.0, help="share of labels in the pool that are turned round")
    parser.add_argument("--json", type=Path, help="write the accuracies here")
    parser.add_argument("--figure", type=Path, help="picture, .png or .svg")
    arguments = parser.parse_args()
    pairs = read_features(arguments.config, arguments.features)
    found: dict[str, list[list[float]]] = {name: [] for name in STRATEGIES}
    with bar("seeds", arguments.seeds * len(STRATEGIES)) as progress:
        for seed in range(arguments.seeds):
            for name in STRATEGIES:
                found[name].append(simulate(pairs, name, seed, arguments.noise))
                progress.advance()
    curves = {name: np.array(rows) for name, rows in found.items()}  # [seeds, counts]
    print(table(curves))
    if arguments.json:
        told = {"counts": COUNTS, "noise": arguments.noise, "accuracy": found}
        arguments.json.write_text(json.dumps(told) + "\n", encoding="utf-8")
    if arguments.figure:
        plot(curves, arguments.figure)


def read_features(config: Path, file: Path) -> Pairs:
    """From the file, or made and kept there; then as principal components, on one scale."""
    if not file.is_file():
        made = embed(config)
        np.savez(file, differences=made.differences, prompts=made.prompts)
    with np.load(file) as kept:
        differences, prompts = kept["differences"], kept["prompts"]
    differences = differences / np.sqrt((differences**2).mean(0))
    left, scale, _ = np.linalg.svd(differences, full_matrices=False)  # not centred: the sign of a pair is its label
    parts = (left * scale)[:, :COMPONENTS]
    return Pairs(parts / np.sqrt((parts[:, 0] ** 2).mean()), prompts)


def embed(config_path: Path) -> Pairs:
    """Features of a config's pairs under its base."""
    import torch

    from pipeline.config import load_config
    from pipeline.stages.inputs import encode_pairs, load_backbone, read, reward_section

    config = load_config(config_path)
    cfg = reward_section(config)
    backbone = load_backbone(config)
    pairs = encode_pairs(backbone.chat, read(config, cfg.data, "preferences"), cfg.max_length)
    texts = {tuple(ids): pair.prompt_length for pair in pairs for ids in (pair.chosen, pair.rejected)}
    known: dict[tuple[int, ...], Any] = {}
    ordered = sorted(texts, key=len)
    with bar("features", len(ordered)) as progress, torch.no_grad():
        for start in range(0, len(ordered), 16):
            batch = ordered[start : start + 16]
            hidden = backbone.hidden(None, backbone.pad([list(ids) for ids in batch]))
            for row, ids in zip(hidden.double().cpu().numpy(), batch, strict=True):
                known[ids] = np.concatenate([row[len(ids) - 1], row[texts[ids] : len(ids)].mean(0)])
            progress.advance(len(batch))
    numbers: dict[str, int] = {}
    prompts = [numbers.setdefault(pair.row.key, len(numbers)) for pair in pairs]
    differences = [known[tuple(pair.chosen)] - known[tuple(pair.rejected)] for pair in pairs]
    return Pairs(np.array(differences), np.array(prompts))


def simulate(pairs: Pairs, strategy: str, seed: int, noise: float) -> list[float]:
    """Accuracy on test pairs at each of COUNTS. The split, the order by chance and the noise are the seed's alone."""
    generator = np.random.default_rng(seed)
    order = generator.permutation(pairs.prompts.max() + 1)
    test = np.isin(pairs.prompts, order[: round(TEST * len(order))])
    pool, held = pairs.differences[~test], pairs.differences[test]
    pool = pool * np.where(generator.random(len(pool)) < noise, -1.0, 1.0)[:, None]
    chance = generator.permutation(len(pool)).tolist()
    asked: list[int] = chance[: COUNTS[0]]
    accuracies = []
    for count in COUNTS:
        if len(asked) < count:
            ensemble = heads(
                pool[asked], generator.multinomial(len(asked), np.full(len(asked), 1 / len(asked)), MEMBERS)
            )
            wanted = np.argsort(-disagreement(ensemble @ pool.T), kind="stable").tolist()
            asked += chosen(strategy, wanted, chance, asked, count - len(asked))
        (head,) = heads(pool[asked], np.ones((1, len(asked))))
        accuracies.append(float((held @ head > 0).mean()))
    return accuracies


def chosen(strategy: str, wanted: list[int], chance: list[int], asked: list[int], number: int) -> list[int]:
    """The next pairs, from one order or from both in turn."""
    taken, new = set(asked), []
    queues = {"random": [chance], "disagreement": [wanted], "mix": [wanted, chance]}[strategy]
    each = [iter(queue) for queue in queues]
    while len(new) < number:
        one = next(pair for pair in each[len(new) % len(each)] if pair not in taken)
        taken.add(one)
        new.append(one)
    return new


def heads(differences: Array, weights: Array) -> Array:
    """argmin over w of Σ weight · −log σ(w·x) + PENALTY/2 · |w|², for each row of weights, by Newton; [fits, d]."""
    basis, rows = np.linalg.qr(differences.T)  # the minimum lies in the span of the pairs
    x, found = rows.T, []
    for weight in weights:
        w = np.zeros(x.shape[1])
        for _ in range(30):
            wrong = expit(-(x @ w))
            gradient = (weight * wrong) @ x - PENALTY * w
            curvature = (x.T * (weight * wrong * (1 - wrong))) @ x + PENALTY * np.eye(len(w))
            step = np.linalg.solve(curvature, gradient)
            w += step
            if np.abs(step).max() < 1e-5:
                break
        found.append(basis @ w)
    return np.array(found)


def table(curves: dict[str, Array]) -> str:
    """Accuracies in % with 95 % intervals over seeds, differences from random seed by seed, and labels for a target."""
    lines = ["| labels | " + " | ".join(STRATEGIES) + " | disagreement − random | mix − random |", "|---" * 6 + "|"]
    for count in SHOWN:
        at = COUNTS.index(count)
        cells = [shown(curves[name][:, at]) for name in STRATEGIES]
        cells += [shown(curves[name][:, at] - curves["random"][:, at], sign=True) for name in STRATEGIES[1:]]
        lines.append(f"| {count} | " + " | ".join(cells) + " |")
    for target in TARGETS:
        cells = []
        for name in STRATEGIES:
            needed, low, high = labels_for(curves[name], target)
            cells.append(f"{needed:.0f} [{low:.0f}, {high:.0f}]")
        lines.append(f"| for {100 * target:.0f} % | " + " | ".join(cells) + " | | |")
    return "\n".join(lines)


def shown(values: Array, *, sign: bool = False) -> str:
    """Mean in %, and Student's interval over seeds."""
    from scipy.stats import t

    mean, half = values.mean(), t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    form = "{:+.1f} [{:+.1f}, {:+.1f}]" if sign else "{:.1f} [{:.1f}, {:.1f}]"
    return form.format(100 * mean, 100 * (mean - half), 100 * (mean + half)).replace("-", "−")


def labels_for(curve: Array, target: float) -> tuple[float, float, float]:
    """Labels at which the mean over seeds first reaches the target, by linear interpolation, with a 95 % interval from
    a bootstrap over seeds; infinite where it isn't reached."""
    generator = np.random.default_rng(0)
    drawn = [reached(curve[generator.integers(0, len(curve), len(curve))].mean(0), target) for _ in range(1000)]
    low, high = np.quantile(drawn, (0.025, 0.975), method="nearest")
    return reached(curve.mean(0), target), float(low), float(high)


def reached(mean: Array, target: float) -> float:
    above = np.flatnonzero(mean >= target)
    if len(above) == 0:
        return float("inf")
    at = int(above[0])
    if at == 0:
        return float(COUNTS[0])
    share = (target - mean[at - 1]) / (mean[at] - mean[at - 1])
    return float(COUNTS[at - 1] + share * (COUNTS[at] - COUNTS[at - 1]))


def plot(curves: dict[str, Array], path: Path) -> None:
    """Accuracy against labels, bands of two standard errors over seeds."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6.4, 3.8), layout="constrained")
    for name, rows in curves.items():
        mean, error = 100 * rows.mean(0), 200 * rows.std(0, ddof=1) / np.sqrt(len(rows))
        axes.plot(COUNTS, mean, color=COLOURS[name], label=name, marker="o", markersize=3)
        axes.fill_between(COUNTS, mean - error, mean + error, color=COLOURS[name], alpha=0.15, linewidth=0)
    axes.set(xscale="log", xlabel="labels", ylabel="accuracy on held-out pairs, %")
    axes.set_xticks(SHOWN, [str(count) for count in SHOWN])
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    main()
