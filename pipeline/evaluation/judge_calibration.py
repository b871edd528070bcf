"""How a judge does on pairs whose answer is known: against the labels, against length, against itself."""

from collections.abc import Sequence

from pipeline.evaluation.judges.protocol import Answer, Judge, Verdict
from pipeline.evaluation.judging import Figures, order_figures, rate
from pipeline.evaluation.statistics import wilson

Pair = tuple[Answer, Answer]
OF_ALL = ("calls", "unparsable", "cost")


def calibrate(judge: Judge, pairs: Sequence[Pair], prompts: Sequence[str]) -> Figures:
    """Ask a judge about labelled pairs, and about each chosen answer against itself.

    Args:
        judge: who is asked.
        pairs: (chosen, rejected).
        prompts: what makes two pairs the same prompt, so that they count as one piece of evidence.

    Returns:
        agreement, _low, _high: (right + ½ ties) / pairs with a verdict, where a prompt with several pairs counts once,
            with a 95 % interval over prompts (`statistics.win_rate`).
        right, ties, wrong, without_verdict: counts of pairs.
        longer_judge, longer_labels, each with _low and _high: how often the longer answer is the preferred one, by the
            judge where it decides and by the labels; over pairs of unequal length, Wilson's interval.
        same_vs_same: mean outcome of each chosen answer against itself; anything but one half is a fault of the judge.
        And `judging.order_figures` of the labelled pairs, where calls, unparsable and cost are those of all questions.
    """
    verdicts = judge.compare([*pairs, *((chosen, chosen) for chosen, _ in pairs)])
    labelled, same = verdicts[: len(pairs)], verdicts[len(pairs) :]
    by_prompt: dict[str, list[Verdict]] = {}
    for prompt, verdict in zip(prompts, labelled, strict=True):
        by_prompt.setdefault(prompt, []).append(verdict)
    groups = list(by_prompt.values())
    figures: Figures = {"pairs": len(pairs), "prompts": len(groups)}
    if (found := rate(groups)) is not None:
        figures |= {"agreement": found.rate, "agreement_low": found.low, "agreement_high": found.high}
        figures |= {"right": found.wins, "ties": found.ties, "wrong": found.losses}
    figures["without_verdict"] = sum(verdict.outcome is None for verdict in labelled)
    figures |= _longer("longer_judge", pairs, [verdict.outcome for verdict in labelled])
    figures |= _longer("longer_labels", pairs, [1.0] * len(pairs))
    itself = [verdict.outcome for verdict in same if verdict.outcome is not None]
    if itself:
        figures["same_vs_same"] = sum(itself) / len(itself)
    everything = order_figures([verdicts])
    figures |= order_figures(groups)
    return figures | {key: everything[key] for key in OF_ALL if key in everything}


def _longer(name: str, pairs: Sequence[Pair], outcomes: Sequence[float | None]) -> Figures:
    """Share of decided pairs of unequal length in which the longer answer is preferred; nothing if there are none."""
    preferred = [
        (len(first.ids) > len(second.ids)) == (outcome == 1.0)
        for (first, second), outcome in zip(pairs, outcomes, strict=True)
        if outcome in (0.0, 1.0) and len(first.ids) != len(second.ids)
    ]
    if not preferred:
        return {}
    low, high = wilson(sum(preferred), len(preferred))
    return {name: sum(preferred) / len(preferred), f"{name}_low": low, f"{name}_high": high}
