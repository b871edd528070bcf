"""Running moments are those of everything at once; schedules are straight lines."""

import pytest
import torch
from torch.testing import assert_close

from pipeline.rl.moments import RunningMoments
from pipeline.rl.schedules import linear_schedule


def test_batches_add_up() -> None:
    data = torch.randn(100, 3, dtype=torch.float64) * torch.tensor([1.0, 5.0, 0.1]) + 7.0
    moments = RunningMoments((3,))
    for part in data.split([1, 40, 9, 50]):
        moments.update(part)
    moments.update(data[:0])
    assert moments.count == 100
    assert_close(moments.mean, data.mean(0))
    assert_close(moments.variance, data.var(0, correction=0))
    normal = moments.normalize(data)
    assert_close(normal.mean(0), torch.zeros(3, dtype=torch.float64), atol=1e-9, rtol=0)
    assert_close(normal.std(0, correction=0), torch.ones(3, dtype=torch.float64), atol=1e-5, rtol=0)


def test_before_anything_was_seen_nothing_changes() -> None:
    assert_close(RunningMoments((2,)).normalize(torch.tensor([3.0, -4.0])), torch.tensor([3.0, -4.0]))


def test_rewards_keep_their_sign_and_outliers_are_clipped() -> None:
    moments = RunningMoments()
    moments.update(torch.tensor([10.0, 12.0]))
    assert moments.normalize(torch.tensor(5.0), shift=False).item() == pytest.approx(5.0)
    assert moments.normalize(torch.tensor(1e6)).item() == 10.0


def test_they_are_saved_and_a_wrong_shape_is_refused() -> None:
    moments, other = RunningMoments((2,)), RunningMoments((2,))
    moments.update(torch.randn(5, 2))
    other.load_state_dict(moments.state_dict())
    assert_close(other.variance, moments.variance)
    with pytest.raises(ValueError, match="mean"):
        RunningMoments((3,)).load_state_dict(moments.state_dict())
    with pytest.raises(ValueError, match="batch"):
        moments.update(torch.randn(5, 3))


def test_a_schedule_is_straight_and_stays() -> None:
    assert [linear_schedule(1.0, 0.2, share) for share in (-1.0, 0.0, 0.5, 1.0, 2.0)] == pytest.approx(
        [1.0, 1.0, 0.6, 0.2, 0.2]
    )
