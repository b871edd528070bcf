"""People among the judges of an evaluation: how much they compared, and how far the other judges agree with them."""

from collections.abc import Mapping
from typing import Any

from pipeline.config import Config, HumanJudgeConfig
from pipeline.evaluation.compare import Answers
from pipeline.evaluation.judges.human import People
from pipeline.evaluation.judging import agreement_over_prompts
from pipeline.progress import say
from pipeline.rundir import RunDir
from pipeline.stages.judges import people
from pipeline.stages.verdicts import ByPair, by_prompt


def people_metrics(
    config: Config, run_dir: RunDir, answers: Mapping[str, Answers], verdicts: Mapping[str, ByPair]
) -> dict[str, float | int]:
    """Figures of judges of kind human, under judges.NAME.

    Args:
        verdicts: of every judge, the run's own first.

    Returns:
        annotators: people who compared, an adjudicator aside.
        compared, comparisons: answers that they compared, of so many that judges were asked about.
        gone: comparisons of theirs between the same systems whose answers have changed since.
        against.OTHER.agreement, .kappa, each with _low and _high, and .n: see `judging.agreement_over_prompts`, for
            every judge that isn't people.
    """
    metrics: dict[str, float | int] = {}
    kinds = {name: judge for name, judge in config.evaluate.judges.items() if isinstance(judge, HumanJudgeConfig)}
    for name, judge in kinds.items():
        said, told = people(judge, run_dir), by_prompt(verdicts[name])
        figures: dict[str, float | int] = {
            "annotators": 0 if said is None else said.annotators,
            "compared": sum(verdict.outcome is not None for prompt in told for verdict in prompt),
            "comparisons": sum(map(len, told)),
            "gone": 0 if said is None else sum(_gone(said, answers, pair) for pair in verdicts[name]),
        }
        for other, theirs in verdicts.items():
            if other not in kinds:
                found = agreement_over_prompts(by_prompt(theirs), told)
                figures |= {f"against.{other}.{key}": value for key, value in found.items()}
        _tell(name, figures, visible=config.logging.progress)
        metrics |= {f"judges.{name}.{key}": value for key, value in figures.items()}
    return metrics


def _gone(said: People, answers: Mapping[str, Answers], pair: str) -> int:
    first, _, second = pair.partition("_vs_")
    there: list[Any] = []
    for ours, theirs in zip(answers[first], answers[second], strict=True):
        there += zip(ours, theirs, strict=True)
    return said.gone(there, frozenset({first, second}))


def _tell(name: str, figures: Mapping[str, float | int], *, visible: bool) -> None:
    told = f"judge {name}: {figures['compared']} of {figures['comparisons']} comparisons were made by people"
    if figures["gone"]:
        told += f"; {figures['gone']} more are of answers that have changed since, and count for nothing"
    say(told, visible=visible)
