"""The best of n: by hand, against every subset, against simulation, and with very many answers."""

from itertools import combinations
from math import comb, log

import numpy as np
import pytest

from pipeline.evaluation.best_of_n import best_of_n, best_of_n_kl, weights

SCORES = np.array([[0.1, 0.2, 0.5, 0.9]])


def test_best_of_two_of_four() -> None:
    """Of the six pairs, one has .2 as its best, two .5, three .9: (.2 + 2·.5 + 3·.9)/6 = .65."""
    assert best_of_n(SCORES, SCORES, [1, 2, 4])[0] == pytest.approx([0.425, 0.65, 0.9])


def test_the_order_of_the_answers_does_not_matter() -> None:
    shuffled = SCORES[:, [2, 0, 3, 1]]
    assert best_of_n(shuffled, shuffled, [2])[0, 0] == pytest.approx(0.65)


@pytest.mark.parametrize(("count", "n"), [(5, 1), (5, 3), (7, 7), (12, 4)])
def test_weights_are_the_binomial_ratios(count: int, n: int) -> None:
    expected = [comb(i - 1, n - 1) / comb(count, n) for i in range(1, count + 1)]
    assert weights(count, n) == pytest.approx(expected)
    assert weights(count, n).sum() == pytest.approx(1)


def test_very_many_answers_are_no_trouble() -> None:
    """C(100,000, 50,000) has 30,101 digits. The mean place of the best of n among N is n(N + 1)/(n + 1)."""
    for n in (2, 50_000):
        found = weights(100_000, n)
        assert found.sum() == pytest.approx(1, abs=1e-9)
        place = found @ np.arange(1, 100_001)
        assert place == pytest.approx(n * 100_001 / (n + 1), rel=1e-9)


def test_it_is_the_mean_over_every_subset() -> None:
    """Chosen by one score and told in another, ties shared out evenly."""
    rng = np.random.default_rng(0)
    scores, values = rng.integers(0, 4, (1, 7)).astype(float), rng.normal(size=(1, 7))
    assert len(set(scores[0])) < 7
    for n in (1, 3, 6):
        means = []
        for rows in combinations(range(7), n):
            top = [row for row in rows if scores[0, row] == max(scores[0, list(rows)])]
            means.append(np.mean(values[0, top]))
        assert best_of_n(scores, values, [n])[0, 0] == pytest.approx(np.mean(means))


def test_another_view_of_the_same_answers() -> None:
    """Chosen by a score that the other contradicts: the more answers, the worse."""
    assert best_of_n(SCORES, -SCORES, [1, 2, 4])[0] == pytest.approx([-0.425, -0.65, -0.9])


def test_n_is_from_one_to_all() -> None:
    for n in (0, 5):
        with pytest.raises(ValueError, match="1 ≤ n ≤ 4"):
            best_of_n(SCORES, SCORES, [n])
    with pytest.raises(ValueError, match=r"must both be \[P,N\]"):
        best_of_n(SCORES, SCORES[:, :3], [1])


def test_kl_of_best_of_n() -> None:
    assert best_of_n_kl(1) == 0
    assert best_of_n_kl(4) == pytest.approx(log(4) - 0.75)
