"""Numbers that change as learning goes on: exploration, learning rates, clip ranges."""


def linear_schedule(start: float, end: float, share: float) -> float:
    """start + (end − start) · share, with share clamped to [0, 1].

    Args:
        start: value at share ≤ 0.
        end: value at share ≥ 1.
        share: how much of the way is done.
    """
    return start + (end - start) * min(1.0, max(0.0, share))
