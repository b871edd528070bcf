"""report.html: one file that holds everything it shows. No network, no script needed to read it."""

from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from pipeline.atomic import write_atomically
from pipeline.report import card_charts, card_tables, curves, rewards, samples, supervised, tables, win_tables
from pipeline.report.headline import cautions, comparisons, headline
from pipeline.report.load import Run, load
from pipeline.report.wording import STAGE_NAMES, local_paths_shortened

# Model output may hold anything. Control characters become their pictures, half surrogate pairs the replacement sign.
_VISIBLE = {code: chr(0x2400 + code) for code in range(32) if chr(code) not in "\n\t"} | {0x7F: "\u2421"}
_VISIBLE |= dict.fromkeys((*range(128, 160), *range(55296, 57344), 65534, 65535), "�")


def write_report(run_dir: Path, *, texts: bool = True) -> Path:
    """Write `report.html` into a run folder, from what is there.

    Args:
        texts: False leaves prompts and answers out and writes `report-without-texts.html`, to pass on where the data
            may not go.

    Returns:
        The file's path.

    Raises:
        RunError: no finished stage, or a file of the run that can't be read.
    """
    run_dir = Path(run_dir)
    page = render(load(run_dir), texts=texts)
    path = run_dir / ("report.html" if texts else "report-without-texts.html")
    write_atomically(path, page)
    return path


def render(run: Run, *, texts: bool = True) -> str:
    """The page as text, without prompts and answers if so wanted. The same run gives the same text."""
    return fill("report.html", content(run, texts=texts))


def fill(template: str, values: dict[str, Any]) -> str:
    """A page from its template; whatever a model wrote is escaped."""
    environment = Environment(
        loader=PackageLoader("pipeline.report", "templates"),
        autoescape=True,  # samples are whatever a model wrote
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["picture"] = Markup
    page = environment.get_template(template).render(values)
    return page.translate(_VISIBLE)


def content(run: Run, *, texts: bool = True) -> dict[str, Any]:
    """Everything the template shows."""
    metrics = run["evaluate"].metrics
    pairs = comparisons(metrics)
    charts = curves.policy(run)
    gallery = samples.gallery(run)
    return {
        "title": f"{run.name}: run report",
        "name": run.name,
        "model": str(local_paths_shortened((run.config.get("model") or {}).get("name", "unknown"))),
        "algorithm": (run.config.get("policy") or {}).get("algorithm", ""),
        "seed": run.config.get("seed"),
        "headline": headline(run),
        "cautions": cautions(run),
        "missing": [STAGE_NAMES[stage.name] for stage in run.unfinished],
        "cards": tables.cards(run),
        "win_rates": win_tables.win_rates(run),
        "win_chart": curves.win_rates(pairs, metrics.get("best_of")) if pairs else None,
        "standing": win_tables.standing(run),
        "differences": win_tables.differences(run),
        "slices": win_tables.slices(run),
        "judges": win_tables.judges(run),
        "people": win_tables.people(run),
        "answers": tables.answers(run),
        "overused": tables.overused(run),
        "curves": [chart for chart in charts if chart.title in curves.FIRST] + rewards.curves(run),
        "paid": rewards.table(run),
        "held_out": rewards.held_out(run),
        "more_curves": [chart for chart in charts if chart.title not in curves.FIRST],
        "policy_done": run["policy"].result is not None,
        "sft": supervised.sft(run),
        "sft_curves": curves.supervised(run["sft"]),
        "dpo": supervised.dpo(run),
        "dpo_curves": curves.supervised(run["dpo"]),
        "reward": tables.reward(run),
        "reward_curves": curves.supervised(run["reward"]),
        "failures": curves.failures(run["reward"]),
        "confidence": card_tables.confidence(run["reward"].metrics),
        "confidence_charts": card_charts.confidence(run["reward"].metrics, ["reward", "judge"]),
        "longer_wins": gallery.longer_wins if gallery else "",
        "withheld": not texts,
        "gallery": gallery if texts else None,
        "training": samples.training_steps(run) if texts else [],
        "cost": [table for table in (tables.cost(run), tables.phases(run)) if table],
        "seconds": curves.seconds(run["policy"]),
        "gates": tables.held_gates(run),
        "data": tables.data(run),
        "environment": tables.environment(run),
        "config": yaml.safe_dump(local_paths_shortened(run.config), sort_keys=False, allow_unicode=True),
    }
