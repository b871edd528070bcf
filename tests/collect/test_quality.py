"""What labels are worth, from labels that a reader can count."""

import io
from dataclasses import replace

import pytest
from rich.console import Console
from scipy.stats import binomtest

from pipeline.collect.quality import annotator, quality, ratings_of
from pipeline.collect.records import Answer, Label, Verdict
from pipeline.collect.store import ADJUDICATOR
from pipeline.evaluation.intervals import wilson
from pipeline.terminal.agreement import notes, show_quality
from tests.collect.builders import label, pair


def labels(annotator: str, verdicts: list[Verdict]) -> list[Label]:
    return [label(pair(number), annotator, verdict) for number, verdict in enumerate(verdicts)]


def test_both_bad_is_a_tie_and_a_skip_is_missing() -> None:
    found = ratings_of(labels("ann", ["a", "tie", "skip"]) + labels("ben", ["b", "both_bad", "a"]))
    assert found.tolist() == [[0, 2], [1, 1], [-1, 0]]


def test_agreement_of_two() -> None:
    """Four pairs, three equal: raw .75. Margins a 2, tie 1, b 1 against a 2, tie 1, b 1 (one a ↔ b crosswise twice)."""
    found = quality(labels("ann", ["a", "a", "tie", "b"]) + labels("ben", ["a", "a", "both_bad", "a"]))["agreement"]
    assert (found["pairs"], found["raw"]) == (4, 0.75)
    # e = (2/4)(3/4) + (1/4)(1/4) + (1/4)(0) = 7/16; κ = (3/4 − 7/16)/(9/16) = 5/9
    assert found["cohen_kappa"] == pytest.approx(5 / 9)
    assert found["raw_low"] < 0.75 < found["raw_high"]
    assert {"fleiss_kappa", "alpha_nominal", "alpha_ordinal"} <= set(found)


def test_three_people_have_no_cohen_and_one_has_no_agreement() -> None:
    three = [one for name in ("ann", "ben", "cid") for one in labels(name, ["a", "b", "tie"])]
    found = quality(three)["agreement"]
    assert "cohen_kappa" not in found
    assert found["fleiss_kappa"] == 1.0
    assert quality(labels("ann", ["a", "b"]))["agreement"] == {"pairs": 0}


def test_an_adjudicator_is_no_further_opinion() -> None:
    two = labels("ann", ["a", "a", "b"]) + labels("ben", ["a", "b", "b"])
    settled = [*two, label(pair(1), ADJUDICATOR, "b")]
    assert quality(settled)["agreement"] == quality(two)["agreement"]


def test_planted_pairs_count_for_attention_alone() -> None:
    planted = [label(pair(n, expected="a"), "ann", verdict) for n, verdict in ((90, "a"), (91, "b"), (92, "a"))]
    plain = labels("ann", ["a", "b"]) + labels("ben", ["a", "b"])
    found = quality([*plain, *planted])
    assert found["agreement"] == quality(plain)["agreement"]
    ann, ben = found["annotators"]
    assert (ann["planted_right"], ann["planted"], ann["labels"]) == (2, 3, 2)
    assert (ben["planted"], found["planted"]) == (0, 3)


def test_places_and_lengths() -> None:
    """The builder shows a first; of twelve decided labels nine are for it. b is longer by a word."""
    mine = labels("ann", ["a"] * 9 + ["b"] * 3 + ["tie", "skip"])
    found = annotator(mine)
    assert (found["first"], found["first_n"]) == (0.75, 12)
    assert (found["first_low"], found["first_high"]) == wilson(9, 12)
    assert found["first_p"] == pytest.approx(binomtest(9, 12).pvalue)
    assert (found["longer"], found["longer_n"]) == (0.25, 12)
    equal = replace(pair(0), a=Answer("abc", "sft"), b=Answer("xyz", "policy"))
    assert "longer" not in annotator([label(equal, "ann", "a")])
    turned = [replace(one, first="b") for one in mine]
    assert annotator(turned)["first"] == 0.25
    assert annotator(turned)["longer"] == 0.25


def test_the_tables_and_what_needs_attention() -> None:
    hasty = [replace(one, seconds=1.5) for one in labels("ben", ["a"] * 12)]
    planted = [replace(label(pair(50, expected="b"), "ben", "a"), seconds=1.5)]
    figures = quality(labels("ann", ["a", "b"] * 6) + hasty + planted)
    found = notes(figures)
    assert [line.split()[1] for line in found] == ["leans", "missed", "answered"]
    assert all(line.startswith("ben") for line in found)
    out = io.StringIO()
    show_quality(figures, Console(file=out, width=140))
    for part in ("24 labels of 12 pairs", "Agreement on 12 pairs", "Cohen's κ", "0 of 1", "100% [76%, 100%]", "1.5"):
        assert part in out.getvalue()


def test_one_person_alone_is_told() -> None:
    assert notes(quality(labels("ann", ["a", "b"])))[0].startswith("no pair was judged by two")
    same = labels("ann", ["a", "a"]) + labels("ben", ["a", "a"])
    assert "κ and α say nothing" in notes(quality(same))[0]
