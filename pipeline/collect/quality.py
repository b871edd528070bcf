"""What the labels are worth: do people agree, do they pay attention, do they look at places or at length?

A tie and "both bad" say that neither answer is better: both count as the middle of a < tie < b. A skip says nothing.
Planted pairs, whose better answer is known, count for the checks of attention alone.
"""

from collections import Counter
from collections.abc import Sequence
from itertools import groupby
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

from pipeline.collect.records import VERDICTS, Label
from pipeline.collect.store import ADJUDICATOR
from pipeline.evaluation.agreement import (
    Estimate,
    cohen_kappa,
    counts,
    estimate,
    fleiss_kappa,
    krippendorff_alpha,
    raw_agreement,
    two_raters,
)
from pipeline.evaluation.intervals import wilson

Figures = dict[str, Any]
CATEGORIES = {"a": 0, "tie": 1, "both_bad": 1, "b": 2}  # in their order


def quality(labels: Sequence[Label], *, seed: int = 0) -> Figures:
    """All of it, for JSON: counts, `agreement`, and one row a person under `annotators` (`annotator`)."""
    asked, planted = split(labels)
    ordered = sorted(labels, key=lambda label: label.annotator)
    return {
        "labels": len(asked),
        "pairs": len({label.pair.id for label in asked}),
        "planted": len(planted),
        "verdicts": {verdict: sum(label.verdict == verdict for label in asked) for verdict in VERDICTS},
        "agreement": agreement(asked, seed=seed),
        "annotators": [
            {"annotator": name, **annotator(list(theirs))}
            for name, theirs in groupby(ordered, key=lambda label: label.annotator)
        ],
    }


def split(labels: Sequence[Label]) -> tuple[list[Label], list[Label]]:
    """Labels of real pairs, and of planted ones."""
    asked = [label for label in labels if label.pair.expected is None]
    return asked, [label for label in labels if label.pair.expected is not None]


def agreement(labels: Sequence[Label], *, seed: int = 0) -> Figures:
    """Between people, over the pairs that at least two of them judged; each coefficient with _low and _high (95 %).

    Returns:
        pairs: how many those are; the only figure where there are none.
        raw: share of equal verdicts among people, a pair counts once.
        cohen_kappa: where there are exactly two people; fleiss_kappa: for any number.
        alpha_nominal, alpha_ordinal: Krippendorff's, over a < tie < b.
        κ and α are left out where nobody could have disagreed: everybody always gave one and the same verdict.
    """
    ratings = ratings_of(labels)
    table = counts(ratings, 3)
    found: dict[str, Estimate | None] = {
        "raw": raw_agreement(table),
        "fleiss_kappa": estimate(fleiss_kappa(table), seed=seed),
        "alpha_nominal": estimate(krippendorff_alpha(table, "nominal"), seed=seed),
        "alpha_ordinal": estimate(krippendorff_alpha(table, "ordinal"), seed=seed),
    }
    if ratings.shape[1] == 2:
        found["cohen_kappa"] = estimate(cohen_kappa(two_raters(ratings[:, 0], ratings[:, 1], 3)), seed=seed)
    figures: Figures = {"pairs": int((table.sum(1) >= 2).sum())}
    for name, value in found.items():
        figures |= {} if value is None else value.figures(name)
    return figures


def ratings_of(labels: Sequence[Label]) -> NDArray[np.int64]:
    """[pairs, people], categories by CATEGORIES, −1 where somebody wasn't asked or skipped. An adjudicator, who sees
    what others disagree on, isn't one of them."""
    told = [label for label in labels if label.verdict in CATEGORIES and label.annotator != ADJUDICATOR]
    pairs = {name: row for row, name in enumerate(sorted({label.pair.id for label in told}))}
    people = {name: column for column, name in enumerate(sorted({label.annotator for label in told}))}
    ratings = np.full((len(pairs), len(people)), -1)
    for label in told:
        ratings[pairs[label.pair.id], people[label.annotator]] = CATEGORIES[label.verdict]
    return ratings


def annotator(labels: Sequence[Label]) -> Figures:
    """One person's habits.

    Returns:
        labels, planted_right, planted, skipped: counts; `planted_right` of `planted` checks of attention were passed.
        seconds: median from showing to answering.
        first, longer: share of decided labels for the answer shown first, and for the longer one in characters (where
            they differ), with _low and _high (Wilson), _n, and _p against one half (exact binomial test). Left out
            where nothing was decided. Liking length needn't be a fault: longer answers may be better.
    """
    asked, planted = split(labels)
    decided = [label for label in asked if label.verdict in ("a", "b")]
    unequal = [label for label in decided if len(label.pair.a.text) != len(label.pair.b.text)]
    verdicts = Counter(label.verdict for label in asked)
    return {
        "labels": len(asked),
        "skipped": verdicts["skip"],
        "planted": len(planted),
        "planted_right": sum(label.verdict == label.pair.expected for label in planted),
        "seconds": median(label.seconds for label in labels),
        **_share("first", [label.verdict == label.first for label in decided]),
        **_share("longer", [label.verdict == longer(label) for label in unequal]),
    }


def longer(label: Label) -> str:
    """Which answer has more characters; b where they are equal."""
    return "a" if len(label.pair.a.text) > len(label.pair.b.text) else "b"


def _share(name: str, chosen: Sequence[bool]) -> Figures:
    if not chosen:
        return {}
    k, n = sum(chosen), len(chosen)
    low, high = wilson(k, n)
    p = float(binomtest(k, n).pvalue)
    return {name: k / n, f"{name}_low": low, f"{name}_high": high, f"{name}_n": n, f"{name}_p": p}
