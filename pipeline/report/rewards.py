"""What the policy was paid for: each term of its reward, as a table and as a curve."""

from typing import Any

from pipeline.report.charts import Chart, Line, lines
from pipeline.report.load import Run
from pipeline.report.tables import Table
from pipeline.report.wording import DASH, local_paths_shortened, number, system_name, under

OWN = {"reward": {"model": "reward", "weight": 1.0}}  # the default: nothing to tell


def _terms(run: Run) -> dict[str, Any]:
    """The terms as configured, none where the run's own reward model is all there is."""
    terms = (run.config.get("policy") or {}).get("rewards") or {}
    plain = {name: {key: value for key, value in term.items() if value is not None} for name, term in terms.items()}
    return {} if plain == OWN else plain


def table(run: Run) -> Table | None:
    """Every term with its weight, and its mean in the first step and over the last ones."""
    metrics = run["policy"].metrics
    rows = []
    for name, term in _terms(run).items():
        what = str(local_paths_shortened(term.get("function") or term.get("model")))
        first, last = (metrics.get(f"reward.{name}{part}") for part in ("_first", ""))
        rows.append([name, what, number(term.get("weight"), 2), number(first, 3), number(last, 3)])
    caption = (
        "What the policy was paid for: score = Σ weight · term. Functions count as they are, reward models in "
        "deviations of SFT's scores. At last: the mean over the last fifth of the steps."
    )
    return Table(caption, ["Term", "What it is", "Weight", "First step", "At last"], rows) if rows else None


def held_out(run: Run) -> Table | None:
    """What the functions among the terms give each system's answers to the evaluation's prompts."""
    metrics, best_of = run["evaluate"].metrics, run["evaluate"].metrics.get("best_of")
    rows = []
    for name, term in _terms(run).items():
        found = under(metrics, f"rewarded.{name}.") if "function" in term else {}
        for system in (key for key in found if f"mean_tokens.{key}" in metrics):
            low, high = (found.get(f"{system}_{end}") for end in ("low", "high"))
            bounds = DASH if low is None or high is None else f"[{number(low, 3)}, {number(high, 3)}]"
            rows.append([name, system_name(system, best_of), number(found[system], 3), bounds])
    caption = "What the functions give everybody's answers to the evaluation's prompts, which no stage has seen: means."
    return Table(caption, ["Function", "System", "Mean", "95 % interval"], rows) if rows else None


def curves(run: Run) -> list[Chart]:
    """One curve a term."""
    charts = []
    for name, term in _terms(run).items():
        if points := run["policy"].series(f"reward/{name}"):
            unit = "the function's value" if "function" in term else "SFT standard deviations"
            look = f"Weighs {number(term.get('weight'), 2)}. A term that falls is sold for the others."
            title = f"Reward: {name}"
            charts.append(Chart(title, look, lines(f"reward-{name}", [Line(title, "reward", points)], unit)))
    return charts
