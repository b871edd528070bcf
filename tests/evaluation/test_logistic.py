"""The many fits against scikit-learn's single ones, and against closed forms."""

import numpy as np
import pytest
from scipy.special import expit, logit
from sklearn.linear_model import LogisticRegression

from pipeline.evaluation.logistic import logistic


@pytest.mark.parametrize(("n", "k"), [(30, 1), (40, 2), (800, 4)])
def test_each_fit_is_scikit_learns(n: int, k: int) -> None:
    rng = np.random.default_rng(n)
    design = rng.normal(0.5, 1, (n, k))
    outcome = np.where(rng.random(n) < 0.3, 0.5, rng.random(n) < expit(design.sum(1)))
    weights = rng.integers(0, 3, (5, n)).astype(float)
    twice, label = np.vstack([design, design]), np.repeat([1, 0], n)
    for row, beta in zip(weights, logistic(design, outcome, weights), strict=True):
        model = LogisticRegression(C=np.inf, fit_intercept=False, solver="newton-cholesky", tol=1e-12)
        model.fit(twice, label, np.concatenate([row * outcome, row * (1 - outcome)]))
        assert beta == pytest.approx(model.coef_[0], abs=1e-6)


def test_an_intercept_alone_is_the_logit_of_the_share() -> None:
    """Also far out, and with an outcome for each fit."""
    shares = np.array([[0.5], [0.9], [0.001], [1 - 1e-9]])
    found = logistic(np.ones((1, 1)), shares, np.full((4, 1), 7.0))
    assert found[:, 0] == pytest.approx(logit(shares[:, 0]), rel=1e-6, abs=1e-9)


def test_weights_count_as_so_many_rows() -> None:
    design, outcome = np.array([[1.0, 2.0], [1.0, -1.0], [1.0, 0.5]]), np.array([1.0, 0.5, 0.0])
    (weighted,) = logistic(design, outcome, np.array([[3.0, 1.0, 2.0]]))
    rows = [0, 0, 0, 1, 2, 2]
    (repeated,) = logistic(design[rows], outcome[rows], np.ones((1, 6)))
    assert weighted == pytest.approx(repeated)


def test_no_finite_maximum_is_no_answer() -> None:
    design = np.array([[1.0, -1.0], [1.0, 1.0]])
    with pytest.raises(RuntimeError, match="no finite maximum"):
        logistic(design, np.array([0.0, 1.0]), np.ones((2, 2)))
