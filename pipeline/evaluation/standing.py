"""How several systems stand to each other, and where a win comes from."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

from pipeline.evaluation.compare import Answers, judged
from pipeline.evaluation.judges.protocol import Judge
from pipeline.evaluation.ratings import ratings
from pipeline.evaluation.statistics import TOO_FEW, Outcomes, by_slice, length_bands, paired_difference, win_rate

Rows = list[dict[str, Any]]


def round_robin(judge: Judge, answers: Mapping[str, Answers]) -> dict[tuple[str, str], Outcomes]:
    """Outcomes for the first by prompt, of every two systems; for judges that can be asked freely."""
    return {(a, b): judged(judge, answers[a], answers[b])[0] for a, b in combinations(answers, 2)}


def standing(outcomes: Mapping[tuple[str, str], Outcomes], *, anchor: str, seed: int) -> Rows:
    """A row a system, the best first: its rating (`ratings.ratings`, the anchor at 1000) and win rate over each other.

    Returns:
        Rows {"system", "rating", "low", "high", "caveat", "over": {other: [rate, low, high]}}.
    """
    over: dict[str, dict[str, list[float]]] = {}
    for (a, b), found in outcomes.items():
        rate = win_rate(found)
        over.setdefault(a, {})[b] = [rate.rate, rate.low, rate.high]
        over.setdefault(b, {})[a] = [1 - rate.rate, 1 - rate.high, 1 - rate.low]
    return [
        {
            "system": name,
            "rating": place.rating,
            "low": place.low,
            "high": place.high,
            "caveat": place.caveat,
            "over": over[name],
        }
        for name, place in ratings(outcomes, anchor=anchor, seed=seed).items()
    ]


def differences(
    outcomes: Mapping[tuple[str, str], Outcomes], *, of: str, over: str, among: Sequence[str]
) -> dict[str, float]:
    """By how much `of` wins more often over the baseline `over` than each of `among` does, on the same prompts.

    Returns:
        Keys "of_minus_other_over_baseline", in [−1, 1], with _low and _high (95 %) and _p (`paired_difference`).
    """
    figures: dict[str, float] = {}
    for other in among:
        found = paired_difference(against(outcomes, of, over), against(outcomes, other, over))
        key = f"{of}_minus_{other}_over_{over}"
        figures |= {key: found.difference, f"{key}_low": found.low, f"{key}_high": found.high, f"{key}_p": found.p}
    return figures


def slices(outcomes: Outcomes, labels: Mapping[str, Sequence[str | None]]) -> Rows:
    """Win rates by slice: rows {"by", "slice", "rate", "low", "high", "n"}, one for each value of each label; nothing
    for a label of which every value has too few prompts."""
    rows: Rows = []
    for by, own in labels.items():
        found = by_slice(outcomes, own) if any(label is not None for label in own) else {}
        if set(found) != {TOO_FEW}:
            rows += [
                {"by": by, "slice": value, "rate": rate.rate, "low": rate.low, "high": rate.high, "n": rate.n}
                for value, rate in found.items()
            ]
    return rows


def prompt_labels(categories: Sequence[str | None], lengths: Sequence[int]) -> dict[str, Sequence[str | None]]:
    """What prompts are told apart by: their category, where the data name one, and their length in tokens."""
    found: dict[str, Sequence[str | None]] = {"prompt tokens": list(length_bands(lengths))}
    return ({"category": categories} if any(categories) else {}) | found


def against(outcomes: Mapping[tuple[str, str], Outcomes], system: str, baseline: str) -> Outcomes:
    """A system's outcomes over another, whichever of the two was named first."""
    if (system, baseline) in outcomes:
        return outcomes[system, baseline]
    return [[1 - outcome for outcome in prompt] for prompt in outcomes[baseline, system]]
