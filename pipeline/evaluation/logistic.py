"""Logistic regression for many weightings of the same rows at once: what a bootstrap of a whole fit needs."""

import numpy as np
from scipy.special import expit

from pipeline.evaluation.intervals import Array

STEPS = 35  # each takes log-odds about 1 further, and beyond 36 a float can't tell them from certainty
TOLERANCE = 1e-6  # the step after it would be about its square


def logistic(design: Array, outcome: Array, weights: Array) -> Array:
    """Maximum-likelihood coefficients β of P(y) = σ(xβ), without penalty, for each row of weights.

        maximise Σ_r w_r (y_r log σ(x_r β) + (1 − y_r) log(1 − σ(x_r β)))

    by Newton's method on all weightings together, from β = 0, where the curvature is largest and no step too long.
    scikit-learn's LogisticRegression with C = ∞ finds the same for one (a test compares them), in 4 s for 2,000
    resamples of 805 prompts that take .4 s here.

    Args:
        design: [rows, k], with a column of ones where an intercept is meant.
        outcome: [rows] or [fits, rows], in [0, 1]: ½ is half a win and half a loss.
        weights: [fits, rows], ≥ 0.

    Returns:
        [fits, k].

    Raises:
        RuntimeError: some weighting has no finite maximum: callers see to it that there is one.
    """
    k = design.shape[1]
    squares = (design[:, :, None] * design[:, None, :]).reshape(-1, k * k)
    beta = np.zeros((len(weights), k))
    for _ in range(STEPS):
        p = expit(beta @ design.T)
        gradient = (weights * (outcome - p)) @ design
        curvature = ((weights * p * (1 - p)) @ squares).reshape(-1, k, k)
        step = np.linalg.solve(curvature, gradient[:, :, None])[:, :, 0]
        beta += step
        if np.abs(step).max() < TOLERANCE:
            return beta
    raise RuntimeError("the likelihood has no finite maximum")
