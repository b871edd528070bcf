"""Which charts a run gets, and what to look for in each."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.report.charts import Bars, Chart, Line, Whisker, bars, lines, stacked, whiskers
from pipeline.report.frontier import frontier
from pipeline.report.headline import Comparison
from pipeline.report.load import Run, Stage
from pipeline.report.wording import system_name


@dataclass(frozen=True)
class Curve:
    """How one figure of metrics.jsonl is drawn."""

    key: str
    title: str
    unit: str
    look: str
    share: bool = False
    level: float | None = None
    floor: float | None = None
    color: str = "policy"
    exact: bool = False
    judge: str | None = None  # the judge's view of the same, drawn beside it


SCORE, NATS, TOKEN = "SFT standard deviations", "nats per answer", "nats per token"
POLICY = (
    Curve(
        *("objective/score", "Reward score", SCORE),
        look="Rises, then levels off; 0 is SFT's mean. If the judge's falls meanwhile, it is gamed.",
        level=0.0,
        judge="objective/judge",
    ),
    Curve("objective/kl", "KL from SFT", NATS, "Grows slowly. A jump means the reward is being gamed."),
    Curve("objective/tokens", "Answer length", "tokens per answer", "Steady. A drift says that length is rewarded."),
    Curve("objective/eos_rate", "Ends by itself", "answers", "Stays high; the others hit the limit.", share=True),
    Curve("objective/stock_phrases", "Stock phrases", "surplus per answer", "Low: what is over-used costs score."),
    Curve("objective/repetition", "Repetition", "three-word phrases", "Low: said before in the answer.", share=True),
    Curve("policy/entropy", "Entropy", TOKEN, "Falls gently. A collapse means one answer for everything."),
    Curve("policy/clip_fraction", "Clip fraction", "tokens", "A few percent; if more, steps are large.", share=True),
    Curve("policy/approx_kl", "Approximate KL of an update", TOKEN, "Small and steady, around 0.01 or less."),
    Curve("policy/ratio_max", "Largest ratio", "new ÷ old", "Near 1; peaks are tokens that moved a lot.", level=1.0),
    Curve("value/loss", "Critic's loss", "squared error", "Falls in the first steps, then stays low.", color="judge"),
    Curve(
        *("value/explained_variance", "Explained variance", "share of the returns' variance"),
        look="Rises towards 1; at 0 the critic is no help.",
        level=0.0,
        floor=-1.0,
        color="judge",
    ),
    Curve("objective/equal_groups", "Equal groups", "groups", "All scores equal: nothing to learn.", share=True),
    Curve("policy/grad_norm", "Gradient norm", "before clipping", "No growing peaks."),
    Curve("policy/learning_rate", "Learning rate", "", "The schedule, as it was used.", exact=True),
)
# What to look at first; the page keeps the others folded.
FIRST = ("Reward score", "KL from SFT", "Score against distance", "Answer length", "Ends by itself", "Entropy")


def supervised(stage: Stage) -> list[Chart]:
    """Training and held-out loss of whatever was fitted in this stage, and held-out accuracy where there is one."""
    charts = []
    titles = {"sft": "SFT loss", "dpo": "DPO's loss", "reward": "Reward model's loss", "judge": "Judge's loss"}
    units = {"sft": "nats per token", "dpo": "nats per pair", "reward": "nats per pair", "judge": "nats per pair"}
    for name, title in titles.items():
        train, held = stage.series(f"{name}/loss"), stage.series(f"{name}/validation_loss")
        if train or held:
            pair = [Line("training", "muted", train), Line("held out", name, held, measured=True)]
            level = None if name == "sft" else math.log(2)
            coin = "" if name == "sft" else " Dashed: a coin, ln 2."
            look = f"Held out falls, too; when it turns up, it is enough.{coin}"
            charts.append(Chart(title, look, lines(f"{name}-loss", pair, units[name], level=level)))
    accuracy = [
        Line(label, name, stage.series(f"{name}/validation_accuracy"), measured=True)
        for name, label in (("reward", "reward model"), ("judge", "judge"), ("dpo", "DPO's implied reward"))
    ]
    if any(line.points for line in accuracy):
        look = "Measured after each epoch. Dashed: a coin."
        svg = lines(f"{stage.name}-held-out-accuracy", accuracy, "right pairs", share=True, level=0.5)
        charts.append(Chart("Held-out accuracy", look, svg))
    return charts


def policy(run: Run) -> list[Chart]:
    """All curves of policy optimisation that the algorithm left figures for."""
    stage = run["policy"]
    charts = []
    for curve in POLICY:
        points = stage.series(curve.key)
        if points and (curve.key != "objective/equal_groups" or any(share for _, share in points)):
            name = curve.key.replace("/", "-").replace("_", "-")
            drawn = [Line(curve.title, curve.color, points, exact=curve.exact)]
            if curve.judge is not None and (beside := stage.series(curve.judge)):
                drawn.append(Line("judge's score", "judge", beside))
            svg = lines(name, drawn, curve.unit, share=curve.share, level=curve.level, floor=curve.floor)
            charts.append(Chart(curve.title, curve.look, svg))
    charts[2:2] = frontier(run)
    return charts


def seconds(stage: Stage) -> Chart | None:
    """Where the time of policy optimisation goes, step by step."""
    rows = [row for row in stage.rows if "time/total" in row]
    if not rows:
        return None
    names = [key for key in rows[0] if key.startswith("time/") and key != "time/total"]
    phases = {name.removeprefix("time/"): [float(row.get(name, 0.0)) for row in rows] for name in names}
    phases["other"] = [max(0.0, row["time/total"] - sum(p[i] for p in phases.values())) for i, row in enumerate(rows)]
    svg = stacked("seconds", [row["step"] for row in rows], phases, "seconds per step")
    return Chart("Where the time goes", "Generation is usually the largest part.", svg)


def win_rates(pairs: Sequence[Comparison], best_of: int | None) -> Chart:
    """Dots and whiskers of all comparisons."""
    rows = []
    for pair in pairs:
        label = f"{system_name(pair.a, best_of)} vs {system_name(pair.b, best_of)}"
        rows.append(Whisker(label, pair.a, pair.rate, pair.low, pair.high))
    look = "An interval that crosses the dashed line shows nothing either way."
    return Chart("Win rates", look, whiskers("win-rates", rows, level=0.5, title="Win rates with 95 % intervals"))


def failures(stage: Stage) -> Chart | None:
    """Accuracy by kind of failure, when the pairs name one."""
    key = "accuracy_by_failure."
    metrics = stage.metrics
    kinds = sorted({name.split(key, 1)[1] for name in metrics if key in name})
    if not kinds:
        return None
    series = [
        Bars(label, color, [metrics.get(f"{prefix}{key}{kind}") for kind in kinds])
        for label, color, prefix in (("reward model", "reward", ""), ("judge", "judge", "judge_"))
        if any(f"{prefix}{key}{kind}" in metrics for kind in kinds)
    ]
    title = "Accuracy by kind of failure"
    groups = [kind.replace("_", " ")[:28] for kind in kinds]
    look = "Short bars are what the reward model can't see, and so what the policy may get away with."
    return Chart(title, look, bars("failures", groups, series, title))
