"""Further judges in the evaluation: each is asked once about the pairs that the config names, and measured."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from itertools import chain
from typing import Any

from pipeline.evaluation.compare import Answers, ask
from pipeline.evaluation.judges.protocol import Judge, Verdict
from pipeline.evaluation.judging import agreement, order_figures, rate

ByPair = dict[str, list[list[Verdict]]]  # by pair "a_vs_b", by prompt
HEADLINE = "policy_vs_sft"


def ask_judges(
    judges: Mapping[str, Judge],
    answers: Mapping[str, Answers],
    pairs: Sequence[str],
    verdicts: dict[str, ByPair],
    after: Callable[[], None],
) -> None:
    """Ask each judge that isn't among `verdicts` yet, add what it says, and call `after`."""
    for name, judge in judges.items():
        if name not in verdicts:
            verdicts[name] = compare_pairs(judge, answers, pairs)
            after()


def compare_pairs(judge: Judge, answers: Mapping[str, Answers], pairs: Sequence[str]) -> ByPair:
    """Everything in one question to the judge, so that it can batch, show one bar, and count what is shared once."""
    sides = [pair.split("_vs_") for pair in pairs]
    first, second = ([prompt for side in sides for prompt in answers[side[index]]] for index in (0, 1))
    found = iter(ask(judge, first, second))
    return {pair: [next(found) for _ in answers[side[0]]] for pair, side in zip(pairs, sides, strict=True)}


def judge_metrics(verdicts: Mapping[str, ByPair], own: ByPair) -> dict[str, float | int]:
    """Figures of every judge under judges.NAME: win rates, what the order did, agreement with the run's own judge."""
    metrics: dict[str, float | int] = {}
    for name, by_pair in verdicts.items():
        figures: dict[str, float | int] = {}
        for pair, found in by_pair.items():
            if (won := rate(found)) is not None:
                figures |= {f"win_rate.{pair}{suffix}": value for suffix, value in won.figures().items()}
        figures |= order_figures(by_prompt(by_pair))
        figures |= agreement(by_prompt(by_pair), by_prompt(own))
        metrics |= {f"judges.{name}.{key}": value for key, value in figures.items()}
    return metrics


def by_prompt(by_pair: ByPair) -> list[list[Verdict]]:
    """What was said of a prompt in all pairs together: it is one piece of evidence."""
    return [list(chain.from_iterable(prompt)) for prompt in zip(*by_pair.values(), strict=True)]


def first_outcomes(verdicts: Mapping[str, ByPair], index: int) -> dict[str, float | None]:
    """What each judge says of a prompt's first samples of policy and SFT, for those asked about them."""
    return {name: found[HEADLINE][index][0].outcome for name, found in verdicts.items() if HEADLINE in found}


def to_rows(verdicts: Mapping[str, ByPair]) -> dict[str, Any]:
    """Plain values, for a checkpoint."""
    return {
        name: {pair: [[asdict(verdict) for verdict in prompt] for prompt in found] for pair, found in by_pair.items()}
        for name, by_pair in verdicts.items()
    }


def from_rows(rows: Mapping[str, Any]) -> dict[str, ByPair]:
    """What `to_rows` was given."""
    return {
        name: {pair: [[Verdict(**row) for row in prompt] for prompt in found] for pair, found in by_pair.items()}
        for name, by_pair in rows.items()
    }
