"""Agreement of several raters, held against the published worked examples and scikit-learn."""

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from pipeline.evaluation.agreement import (
    cohen_kappa,
    counts,
    estimate,
    fleiss_kappa,
    krippendorff_alpha,
    raw_agreement,
    two_raters,
)
from pipeline.evaluation.intervals import tails, wilson

# Fourteen raters put ten subjects into five categories; the example of "Fleiss' kappa" in Wikipedia: κ = .210.
FLEISS = [
    [0, 0, 0, 0, 14],
    [0, 2, 6, 4, 2],
    [0, 0, 3, 5, 6],
    [0, 3, 9, 2, 0],
    [2, 2, 8, 1, 1],
    [7, 7, 0, 0, 0],
    [3, 2, 6, 3, 0],
    [2, 5, 3, 2, 2],
    [6, 5, 2, 1, 0],
    [0, 2, 2, 3, 7],
]
# Four observers, twelve units, * = missing; part C of Krippendorff 2011: nominal .743, ordinal .815, interval .849.
KRIPPENDORFF = [
    "1 2 3 3 2 1 4 1 2 * * *",
    "1 2 3 3 2 2 4 1 2 5 * 3",
    "* 3 3 3 2 3 4 2 2 5 1 *",
    "1 2 3 3 2 4 4 1 2 5 1 *",
]


def krippendorff_counts() -> np.ndarray:
    rows = [[-1 if value == "*" else int(value) - 1 for value in row.split()] for row in KRIPPENDORFF]
    return counts(np.array(rows).T, 5)


def test_fleiss_published_example() -> None:
    assert fleiss_kappa(FLEISS)() == pytest.approx(0.210, abs=5e-4)
    raw = raw_agreement(FLEISS)
    assert raw is not None
    assert raw.value == pytest.approx(0.378, abs=5e-4)  # its P̄


@pytest.mark.parametrize(("level", "alpha"), [("nominal", 0.743), ("ordinal", 0.815), ("interval", 0.849)])
def test_krippendorff_published_example(level: str, alpha: float) -> None:
    assert krippendorff_alpha(krippendorff_counts(), level)() == pytest.approx(alpha, abs=5e-4)  # type: ignore[arg-type]


def test_cohen_is_scikit_learns() -> None:
    generator = np.random.default_rng(0)
    first = generator.integers(0, 3, 200)
    second = np.where(generator.random(200) < 0.6, first, generator.integers(0, 3, 200))
    assert cohen_kappa(two_raters(first, second, 3))() == pytest.approx(cohen_kappa_score(first, second))


def test_cohen_leaves_missing_ratings_aside() -> None:
    first, second = [0, 1, 0, 1, -1, 0], [0, 1, 1, 1, 0, -1]
    assert cohen_kappa(two_raters(first, second, 2))() == pytest.approx(cohen_kappa_score(first[:4], second[:4]))


def test_units_with_one_rating_say_nothing() -> None:
    lonely = [*FLEISS, [1, 0, 0, 0, 0], [0, 0, 0, 0, 0]]
    assert fleiss_kappa(lonely)() == pytest.approx(fleiss_kappa(FLEISS)())
    assert estimate(fleiss_kappa(lonely)) == estimate(fleiss_kappa(FLEISS))
    assert raw_agreement(lonely) == raw_agreement(FLEISS)
    assert krippendorff_alpha(lonely, "ordinal")() == pytest.approx(krippendorff_alpha(FLEISS, "ordinal")())


def test_ordinal_forgives_neighbours() -> None:
    """a against tie is nearer than a against b; nominal sees no difference."""
    near = counts([[0, 0], [2, 2], [1, 1], [0, 1], [2, 1]] * 4, 3)
    far = counts([[0, 0], [2, 2], [1, 1], [0, 2], [2, 0]] * 4, 3)
    assert krippendorff_alpha(near, "ordinal")() > krippendorff_alpha(far, "ordinal")() + 0.2
    assert raw_agreement(near) == raw_agreement(far)
    assert getattr(raw_agreement(near), "value", None) == pytest.approx(0.6)


def test_where_nothing_could_disagree_there_is_no_coefficient() -> None:
    same = counts([[0, 0]] * 5, 3)
    for coefficient in (fleiss_kappa(same), krippendorff_alpha(same, "ordinal"), krippendorff_alpha(same, "nominal")):
        assert estimate(coefficient) is None
    raw = raw_agreement(same)
    assert raw is not None
    assert (raw.value, raw.high) == (1.0, 1.0)
    assert raw.low == pytest.approx(wilson(5, 5)[0])  # five that agree don't prove that all would
    assert raw_agreement(counts([[0, -1]], 3)) is None


def test_the_vectorised_bootstrap_is_the_loop() -> None:
    """The same draws, resampled one by one."""
    table = np.array(FLEISS, dtype=float)
    found = estimate(fleiss_kappa(table), resamples=40, seed=3)
    assert found is not None
    weights = np.random.default_rng(3).multinomial(10, np.full(10, 0.1), size=40)
    drawn = [fleiss_kappa(np.repeat(table, each, axis=0))() for each in weights]
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(drawn, tails(10))))


def test_intervals_cover() -> None:
    """Two raters who copy each other six times in ten, else flip a coin: agreement .8, κ .6; 60 units, 200 worlds."""
    generator, covered = np.random.default_rng(1), np.zeros(2)
    for world in range(200):
        first, other = generator.integers(0, 2, (2, 60))
        second = np.where(generator.random(60) < 0.6, first, other)
        table = counts(np.stack([first, second], 1), 2)
        for place, (found, truth) in enumerate(
            [(raw_agreement(table), 0.8), (estimate(fleiss_kappa(table), resamples=400, seed=world), 0.6)]
        ):
            assert found is not None
            covered[place] += found.low <= truth <= found.high
    assert (covered >= 182).all()
    assert (covered <= 199).all()
