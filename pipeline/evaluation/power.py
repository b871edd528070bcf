"""How many prompts it takes to tell a win rate from one half."""

from math import ceil

from scipy.special import ndtri


def prompts_needed(rate: float, *, against: float = 0.5, power: float = 0.8, confidence: float = 0.95) -> int:
    """Prompts for which a two-sided test tells `rate` from `against` with this power: 785 for .55, 197 for .6.

    n = (z_α + z_β)² p₀(1 − p₀) / (p − p₀)², the normal approximation with the variance at p₀ = `against`. Ties and
    several samples a prompt lower the variance: then fewer prompts do.
    """
    if not (0 < rate < 1 and rate != against):
        raise ValueError(f"rate must lie in (0, 1) and differ from {against}, got {rate}")
    z = float(ndtri((1 + confidence) / 2) + ndtri(power))
    return ceil(z**2 * against * (1 - against) / (rate - against) ** 2)


def detectable(n: int, *, against: float = 0.5) -> float:
    """The smallest win rate above `against` that n prompts can tell from it, to three digits (80 % power)."""
    for thousandth in range(int(against * 1000) + 1, 1000):
        if prompts_needed(thousandth / 1000, against=against) <= n:
            return thousandth / 1000
    return 1.0
