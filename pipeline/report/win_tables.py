"""Who beats whom: the report's tables of win rates, standing, slices and further judges."""

import re
from typing import Any

from pipeline.report.headline import Comparison, comparisons
from pipeline.report.load import Run
from pipeline.report.tables import Table
from pipeline.report.wording import DASH, count, interval, interval_apart, number, percent, system_name, under

VERDICTS = {"better": "better", "worse": "worse", "open": "not shown"}
HARDLY = 0.05  # share of comparisons on the rarer side of equal length, below which a rate there is an extrapolation


def win_rates(run: Run) -> Table | None:
    """Every comparison with counts, interval, and the rate at equal length."""
    metrics = run["evaluate"].metrics
    pairs = comparisons(metrics)
    if not pairs:
        return None
    controlled = any(key.endswith("_length_controlled") for key in metrics)
    heads = ["Comparison", "Win rate", "95 % interval", "Won, tied, lost"]
    heads += [*(["At equal length"] if controlled else []), "First is …"]
    judges = {"judge": "the independent judge", "rewards": "what the policy was paid for"}
    judge = judges.get(str(metrics.get("judge")), "the reward model")
    caption = f"Win rates of the first over the second on {pairs[0].n} prompts, by {judge}; a tie counts half."
    if controlled:
        caption += (
            f" Better or worse: also as one of {len(pairs)} comparisons (Holm). In brackets: lengths hardly overlap."
        )
    return Table(caption, heads, [_win_row(pair, metrics, controlled) for pair in pairs])


def _win_row(pair: Comparison, metrics: dict[str, Any], controlled: bool) -> list[str]:
    rate, bounds = interval_apart(pair.rate, pair.low, pair.high)
    counts = ", ".join(count(n) for n in (pair.wins, pair.ties, pair.losses))
    label = " vs ".join(system_name(name, metrics.get("best_of")) for name in (pair.a, pair.b))
    key = f"win_rate.{pair.a}_vs_{pair.b}"
    verdict = VERDICTS[pair.verdict]
    if pair.verdict != "open" and metrics.get(f"{key}_p_holm", 0.0) >= 0.05:
        verdict = f"{verdict} by itself"
    return [label, rate, bounds, counts, *([_equal_length(metrics, key)] if controlled else []), verdict]


def _equal_length(metrics: dict[str, Any], key: str) -> str:
    rate, low, high = (metrics.get(f"{key}_length_controlled{part}") for part in ("", "_low", "_high"))
    if rate is None or low is None or high is None:
        return DASH
    shown = interval(rate, low, high)
    return f"({shown})" if metrics.get(f"{key}_length_overlap", 1.0) < HARDLY else shown


def standing(run: Run) -> Table | None:
    """Everybody's rating, and win rate over everybody."""
    rows = run["evaluate"].metrics.get("standing")
    if not rows:
        return None
    best_of = run["evaluate"].metrics.get("best_of")
    names = [row["system"] for row in rows]
    heads = ["System", "Rating", *(f"over {system_name(name, best_of)}" for name in names)]
    shown = [
        [
            system_name(row["system"], best_of),
            f"{number(row['rating'], 0)} [{number(row['low'], 0)}, {number(row['high'], 0)}]",
            *(interval(*row["over"][name]) if name in row["over"] else DASH for name in names),
        ]
        for row in rows
    ]
    apart = [f"{system_name(row['system'], best_of)}: {row['caveat']}" for row in rows if row["caveat"]]
    caption = "All against all: Bradley–Terry rating, SFT at 1000 (200 points are three wins in four), and win rates."
    return Table(" ".join([caption, *(f"{text}." for text in apart)]), heads, shown)


def slices(run: Run) -> Table | None:
    """Where the policy wins and where it doesn't."""
    rows = run["evaluate"].metrics.get("slices")
    if not rows:
        return None
    shown = []
    for row in rows:
        cells = interval_apart(row["rate"], row["low"], row["high"])
        shown.append([f"{row['by']}: {row['slice']}", *cells, count(row["n"])])
    caption = "Policy over SFT by slice. Of many slices some look good or bad by chance: mind the intervals."
    return Table(caption, ["Slice", "Win rate", "95 % interval", "Prompts"], shown)


def differences(run: Run) -> Table | None:
    """By how much the policy wins more often over SFT than others do."""
    metrics = run["evaluate"].metrics
    key = re.compile(r"difference\.policy_minus_(.+)_over_sft")
    rows = []
    for name, value in metrics.items():
        if match := key.fullmatch(name):
            low, high, p = (metrics[f"{name}_{part}"] for part in ("low", "high", "p"))
            bounds = f"[{number(100 * low, 0)}, {number(100 * high, 0)}]"
            points = ("+" if value > 0 else "") + number(100 * value, 0)
            rows.append([system_name(match[1], metrics.get("best_of")), points, bounds, number(p, 3)])
    caption = "Points by which the policy's win rate over SFT is above another's, prompt by prompt."
    return Table(caption, ["Other", "Difference", "95 % interval", "p"], rows) if rows else None


def judges(run: Run) -> Table | None:
    """Judges besides the run's own: what each says of the first pair it was asked about, and what that is worth."""
    metrics = run["evaluate"].metrics
    key = re.compile(r"judges\.([a-z0-9_]+)\.agreement_n")
    names = [match[1] for name in metrics if (match := key.fullmatch(name))]
    if not names:
        return None
    found = {name: under(metrics, f"judges.{name}.") for name in names}
    pairs = [pair for one in found.values() for pair in comparisons(one)]
    heads = ["Judge", "Win rate", "95 % interval", "Agrees", "κ", "Consistent", "First place", "Unparsable", "Cost"]
    what = f"{system_name(pairs[0].a)} over {system_name(pairs[0].b)}" if pairs else "without a verdict"
    caption = (
        f"Judges besides the run's own, on {what}. Agrees, κ: with the run's own judge, where both decide. Consistent: "
        "the same verdict in both orders. First place: votes for the answer shown first."
    )
    return Table(caption, heads, [_judge_row(run, name, one) for name, one in found.items()])


def people(run: Run) -> Table | None:
    """How far each automatic judge agrees with the people who compared the same answers."""
    metrics = run["evaluate"].metrics
    asked = re.compile(r"judges\.([a-z0-9_]+)\.annotators")
    names = [match[1] for name in metrics if (match := asked.fullmatch(name))]
    found = {name: under(metrics, f"judges.{name}.") for name in names}
    if not found:
        return None
    rows = []
    for name, one in found.items():
        judged = re.compile(r"against\.([a-z0-9_]+)\.n")
        for other in (match[1] for key in one if (match := judged.fullmatch(key))):
            figures = under(one, f"against.{other}.")
            shown = [_bounded(figures, "agreement", percents=True), _bounded(figures, "kappa", percents=False)]
            rows.append([*([name] if len(found) > 1 else []), other, *shown, count(figures["n"])])
    told = [_compared(name if len(found) > 1 else "People", one) for name, one in found.items()]
    caption = " ".join(["Do the judges agree with people? Over the comparisons that both decide.", *told])
    heads = [*(["People"] if len(found) > 1 else []), "Judge", "Same verdict", "κ", "Comparisons"]
    return Table(caption, heads, rows)


def _compared(who: str, figures: dict[str, Any]) -> str:
    people = f"{count(figures['annotators'])} {'person' if figures['annotators'] == 1 else 'people'}"
    told = f"{who}: {people} compared {count(figures['compared'])} of {count(figures['comparisons'])} pairs of answers."
    if figures["gone"]:
        told += f" {count(figures['gone'])} more that were compared have changed since, and count for nothing."
    return told


def _bounded(figures: dict[str, Any], key: str, *, percents: bool) -> str:
    if key not in figures:
        return DASH
    value, low, high = (figures[f"{key}{part}"] for part in ("", "_low", "_high"))
    return interval(value, low, high) if percents else f"{number(value)} [{number(low)}, {number(high)}]"


def _judge_row(run: Run, name: str, metrics: dict[str, Any]) -> list[str]:
    config = ((run.config.get("evaluate") or {}).get("judges") or {}).get(name) or {}
    rate, bounds = DASH, DASH
    if pairs := comparisons(metrics):
        rate, bounds = interval_apart(pairs[0].rate, pairs[0].low, pairs[0].high)
    return [
        f"{name} ({config['kind']})" if "kind" in config else name,
        rate,
        bounds,
        percent(metrics.get("agreement")),
        number(metrics.get("kappa")),
        percent(metrics.get("consistency")),
        percent(metrics.get("first_position")),
        f"{count(metrics['unparsable'])} of {count(metrics['calls'])}" if "unparsable" in metrics else DASH,
        number(metrics.get("cost")),
    ]
