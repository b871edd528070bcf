"""Numbers that change as learning goes on: exploration, learning rates, clip ranges."""

from typing import Literal

Schedule = Literal["constant", "linear"]


def falling(start: float, schedule: Schedule, share: float) -> float:
    """`start` throughout (constant), or on a line to 0 (linear), once `share` of the way is done."""
    return linear_schedule(start, 0.0, share) if schedule == "linear" else start


def linear_schedule(start: float, end: float, share: float) -> float:
    """start + (end − start) · share, with share clamped to [0, 1].

    Args:
        start: value at share ≤ 0.
        end: value at share ≥ 1.
        share: how much of the way is done.
    """
    return start + (end - start) * min(1.0, max(0.0, share))
