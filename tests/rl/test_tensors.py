"""Masks, whitening and the three normalisers."""

import pytest
import torch
from hypothesis import given
from torch.testing import assert_close

from pipeline.rl.tensors import (
    AGGREGATIONS,
    aggregate,
    check_shape,
    denominator,
    masked_mean,
    masked_scale,
    masked_sum,
    masked_whiten,
)

from .builders import FEW, LENGTHS, SEEDS, mask_of

NAN = float("nan")


def test_sums_and_means_skip_padding_even_when_it_is_nan() -> None:
    x = torch.tensor([[1.0, 2.0, NAN], [6.0, NAN, NAN]])
    assert masked_sum(x, ~x.isnan()) == 9.0
    assert masked_mean(x, ~x.isnan()) == 3.0


def test_multiplying_by_the_mask_would_not_skip_nan() -> None:
    x = torch.tensor([1.0, NAN])
    assert (x * ~x.isnan()).sum().isnan()


def test_mean_of_nothing_is_zero() -> None:
    assert masked_mean(torch.ones(2, 3), torch.zeros(2, 3, dtype=torch.bool)) == 0.0


def test_gradient_reaches_real_steps_only() -> None:
    x = torch.ones(2, 2, requires_grad=True)
    masked_mean(x, torch.tensor([[True, False], [True, True]])).backward()
    assert_close(x.grad, torch.tensor([[1 / 3, 0.0], [1 / 3, 1 / 3]]))


def test_whitened_steps_have_mean_0_and_deviation_1() -> None:
    x = torch.tensor([[1.0, 3.0, 100.0]], dtype=torch.float64)
    mask = torch.tensor([[True, True, False]])
    assert_close(masked_whiten(x, mask), torch.tensor([[-1.0, 1.0, 0.0]], dtype=torch.float64))


def test_without_the_shift_the_mean_stays() -> None:
    x = torch.tensor([[2.0, 6.0, 100.0]], dtype=torch.float64)
    mask = torch.tensor([[True, True, False]])
    expected = torch.tensor([[3.0, 5.0, 0.0]], dtype=torch.float64)
    assert_close(masked_whiten(x, mask, shift_mean=False), expected)


def test_scaling_keeps_signs() -> None:
    x = torch.tensor([[2.0, 6.0, 100.0]], dtype=torch.float64)
    mask = torch.tensor([[True, True, False]])
    assert_close(masked_scale(x, mask), torch.tensor([[1.0, 3.0, 0.0]], dtype=torch.float64))


def test_equal_values_whiten_to_zero() -> None:
    assert masked_whiten(torch.full((1, 3), 7.0), torch.ones(1, 3, dtype=torch.bool)).abs().max() == 0.0


def test_eps_is_inside_the_root() -> None:
    x = torch.tensor([[-1.0, 1.0]], dtype=torch.float64)
    mask = torch.ones(1, 2, dtype=torch.bool)
    expected = torch.tensor([[-0.5, 0.5]], dtype=torch.float64)
    assert_close(masked_whiten(x, mask, eps=3.0), expected)
    assert_close(masked_scale(x, mask, eps=3.0), expected)


@FEW
@given(LENGTHS, SEEDS)
def test_padding_changes_no_reduction(lengths: list[int], seed: int) -> None:
    x = torch.randn(len(lengths), 8, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    tight, wide = mask_of(lengths), mask_of(lengths, 8)
    narrow = x[:, : tight.shape[1]]
    junk = torch.where(wide, x, 1e6)
    assert_close(masked_mean(narrow, tight), masked_mean(junk, wide))
    assert_close(masked_whiten(narrow, tight), masked_whiten(junk, wide)[:, : tight.shape[1]])
    for how in AGGREGATIONS:
        a, b = aggregate(narrow, tight, how, max_length=9), aggregate(junk, wide, how, max_length=9)
        assert_close(a, b)


def test_whitening_over_padding_is_wrong() -> None:
    """Taking padding along shrinks the deviation and moves the mean."""
    x = torch.tensor([[1.0, 3.0, 0.0, 0.0]], dtype=torch.float64)
    mask = torch.tensor([[True, True, False, False]])
    wrong = (x - x.mean()) / x.std(unbiased=False)
    assert (wrong - masked_whiten(x, mask))[mask].abs().max() > 0.5


@pytest.mark.parametrize("how", AGGREGATIONS)
@FEW
@given(LENGTHS, SEEDS)
def test_microbatches_sum_to_the_whole(how: str, lengths: list[int], seed: int) -> None:
    mask = mask_of(lengths)
    x = torch.randn(mask.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    whole = aggregate(x, mask, how, max_length=5)
    shared = denominator(mask, how, 5)
    parts = [aggregate(a, m, how, denominator=shared) for a, m in zip(x.split(2), mask.split(2), strict=True)]
    assert_close(sum(parts), whole)


def test_mean_of_microbatch_means_is_wrong() -> None:
    x = torch.tensor([[1.0, 0.0, 0.0, 0.0], [2.0, 2.0, 2.0, 2.0]])
    mask = mask_of([1, 4])
    means = [float(aggregate(a, m, "token")) for a, m in zip(x.split(1), mask.split(1), strict=True)]
    assert sum(means) / 2 == 1.5
    assert_close(aggregate(x, mask, "token"), torch.tensor(1.8))


def test_an_empty_row_counts_for_the_constant_normaliser_only() -> None:
    x = torch.tensor([[1.0, 2.0], [9.0, 9.0]])
    mask = mask_of([2, 0])
    assert aggregate(x, mask, "token") == 1.5
    assert aggregate(x, mask, "sequence") == 1.5
    assert aggregate(x, mask, "constant", max_length=3) == 0.5


@pytest.mark.parametrize("how", AGGREGATIONS)
def test_aggregate_of_nothing_is_zero(how: str) -> None:
    assert aggregate(torch.ones(2, 2), mask_of([0, 0], 2), how, max_length=2) == 0.0


def test_errors_name_field_value_and_fix() -> None:
    x, mask = torch.ones(2, 2), torch.ones(2, 2, dtype=torch.bool)
    with pytest.raises(ValueError, match=r"values: got shape \(2, 2\), need \(2, 3\)"):
        check_shape("values", x, (2, 3))
    with pytest.raises(ValueError, match="mask"):
        masked_mean(x, mask[0])
    with pytest.raises(ValueError, match="how: got 'mean'"):
        aggregate(x, mask, "mean")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="how: got 'mean'"):
        denominator(mask, "mean")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="max_length: got None"):
        aggregate(x, mask, "constant")
