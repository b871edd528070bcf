"""What a judge's verdicts are worth: does it look at places or at answers, and does it agree with another one?

Verdicts stand by prompt, one for each comparison of its samples.
"""

import math
from collections.abc import Sequence
from itertools import chain

from pipeline.evaluation.judges.protocol import Verdict
from pipeline.evaluation.statistics import WinRate, win_rate

ByPrompt = Sequence[Sequence[Verdict]]
Figures = dict[str, float | int]


def rate(verdicts: ByPrompt) -> WinRate | None:
    """Win rate of the first answers, see `statistics.win_rate`; what has no verdict counts for nobody. None where
    nothing has one."""
    found = [[v.outcome for v in prompt if v.outcome is not None] for prompt in verdicts]
    found = [prompt for prompt in found if prompt]
    return win_rate(found) if found else None


def order_figures(verdicts: ByPrompt) -> Figures:
    """What the order of the answers did; nothing for judges that know none.

    Returns:
        consistency: share of the comparisons with a verdict in both orders in which these agree.
        first_position, _low, _high: share of the votes that went to the answer shown first, a tie counting half: one
            half for a judge that looks at answers only. 95 % interval over prompts.
        calls, unparsable: votes that were asked for, and those that couldn't be made out.
        cost: what was charged, where somebody said.

        Shares are left out where no vote could be made out.
    """
    told = [[v for v in prompt if v.orders is not None] for prompt in verdicts]
    orders = [v.orders for v in chain.from_iterable(told) if v.orders is not None]
    if not orders:
        return {}
    figures: Figures = {"calls": 2 * len(orders), "unparsable": sum(vote is None for both in orders for vote in both)}
    whole = [both for both in orders if None not in both]
    if whole:
        figures["consistency"] = sum(one == other for one, other in whole) / len(whole)
    first = [[vote for v in prompt for vote in _for_the_first_shown(v)] for prompt in told]
    if votes := [prompt for prompt in first if prompt]:
        share = win_rate(votes)
        figures |= {"first_position": share.rate, "first_position_low": share.low, "first_position_high": share.high}
    costs = [v.cost for v in chain.from_iterable(told) if v.cost is not None]
    return figures | ({"cost": math.fsum(costs)} if costs else {})


def _for_the_first_shown(verdict: Verdict) -> list[float]:
    one, other = verdict.orders or (None, None)
    return [vote for vote in (one, None if other is None else 1 - other) if vote is not None]


def agreement(verdicts: ByPrompt, others: ByPrompt) -> Figures:
    """How far two judges agree on the comparisons that both decide, ties and missing verdicts left aside.

    Returns:
        agreement: share of equal verdicts, in [0, 1].
        kappa: Cohen's κ = (p − e)/(1 − e), e what their win rates alone would make agree (Cohen 1960); left out where
            both give one verdict only, so that nothing could disagree.
        agreement_n: how many comparisons both decide; the only figure where there are none.
    """
    pairs = [
        (one.outcome, other.outcome)
        for one, other in zip(chain.from_iterable(verdicts), chain.from_iterable(others), strict=True)
        if one.outcome in (0.0, 1.0) and other.outcome in (0.0, 1.0)
    ]
    figures: Figures = {"agreement_n": len(pairs)}
    if not pairs:
        return figures
    figures["agreement"] = sum(one == other for one, other in pairs) / len(pairs)
    if len({vote for pair in pairs for vote in pair}) > 1:
        from sklearn.metrics import cohen_kappa_score  # a second to import, for runs that have several judges only

        mine, theirs = ([pair[side] == 1.0 for pair in pairs] for side in (0, 1))
        figures["kappa"] = float(cohen_kappa_score(mine, theirs))
    return figures
