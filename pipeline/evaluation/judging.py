"""What a judge's verdicts are worth: does it look at places or at answers, and does it agree with another one?

Verdicts stand by prompt, one for each comparison of its samples.
"""

import math
from collections.abc import Sequence
from itertools import chain

import numpy as np

from pipeline.evaluation.agreement import Array, cohen_kappa, estimate, mean_share
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
    tables = _joint(verdicts, others)
    n = int(tables.sum())
    figures: Figures = {"agreement_n": n}
    if n == 0:
        return figures
    figures["agreement"] = float(np.trace(tables.sum(0))) / n
    kappa = cohen_kappa(tables)()
    return figures if math.isnan(kappa) else figures | {"kappa": kappa}


def agreement_over_prompts(verdicts: ByPrompt, others: ByPrompt) -> Figures:
    """As `agreement`, with 95 % intervals over prompts: `agreement`, where a prompt counts once, and `kappa`, each with
    _low and _high; n, the comparisons that both decide."""
    tables = _joint(verdicts, others)
    decided = tables.sum((1, 2))
    figures: Figures = {"n": int(decided.sum())}
    equal = np.trace(tables, axis1=1, axis2=2)[decided > 0] / decided[decided > 0]
    for name, found in (("agreement", mean_share(equal)), ("kappa", estimate(cohen_kappa(tables)))):
        figures |= {} if found is None else found.figures(name)
    return figures


def _joint(verdicts: ByPrompt, others: ByPrompt) -> Array:
    """Of each prompt how often the first answer lost or won by one judge (rows) and by the other (columns), [n, 2, 2];
    a mean verdict above or below ½ is decided."""
    tables = np.zeros((len(verdicts), 2, 2))
    for table, mine, theirs in zip(tables, verdicts, others, strict=True):
        for one, other in zip(mine, theirs, strict=True):
            if one.outcome not in (None, 0.5) and other.outcome not in (None, 0.5):
                table[int(one.outcome > 0.5), int(other.outcome > 0.5)] += 1  # type: ignore[operator]
    return tables
