"""The core type refuses what would be wrong later."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.testing import assert_close

from .builders import last_of, mask_of, rollout_of

F, T = False, True


def test_len_and_lengths() -> None:
    rollout = rollout_of([3, 0, 1])
    assert len(rollout) == 3
    assert rollout.lengths.tolist() == [3, 0, 1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mask": torch.tensor([[T, F, T], [T, F, F]])}, "mask: got a hole in rows \\[0\\]"),
        ({"mask": torch.ones(2, 3)}, "mask: got dtype torch.float32, need torch.bool"),
        ({"mask": torch.ones(6, dtype=torch.bool)}, "mask: got shape"),
        ({"rewards": torch.ones(2)}, "rewards: got shape"),
        ({"rewards": torch.ones(2, 3, dtype=torch.int64)}, "rewards: got dtype torch.int64"),
        ({"terminated": torch.tensor([[F, F, F], [F, F, T]])}, "terminated: got True on 1 padding"),
        ({"truncated": torch.tensor([[F, F, F], [F, F, T]])}, "truncated: got True on 1 padding"),
        ({"truncated": torch.tensor([[F, F, T], [F, F, F]])}, "truncated: got 1 steps also terminated"),
        ({"context": {"states": torch.ones(3, 3)}}, "context\\['states'\\]: got shape \\(3, 3\\)"),
        ({"values": torch.ones(2, 3, device="meta")}, "values: got device meta"),
        ({"context": {"states": torch.ones(2, 3, device="meta")}}, "context.*device meta"),
    ],
)
def test_construction_refuses(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(rollout_of([3, 1]), **change)


def test_select_slices_every_field_and_the_context() -> None:
    rollout = rollout_of([3, 0, 1, 2])
    for index in (torch.tensor([3, 0]), torch.tensor([T, F, F, T])):
        part = rollout.select(index)
        assert len(part) == 2
        for name in ("actions", "rewards", "mask", "values", "ref_logprobs", "terminated"):
            assert_close(getattr(part, name), getattr(rollout, name)[index])
        assert_close(part.context["states"], rollout.context["states"][index])


def test_absent_fields_stay_absent() -> None:
    rollout = rollout_of([2, 1], values=None, next_values=None, ref_logprobs=None)
    assert rollout.select(torch.tensor([0])).values is None
    assert rollout.to("cpu").ref_logprobs is None


def test_to_moves_everything() -> None:
    rollout = rollout_of([2, 1]).to("cpu")
    assert rollout.mask.device.type == rollout.context["states"].device.type == "cpu"


def test_rewards_are_the_price_per_step_plus_the_score_at_the_last_real_step() -> None:
    price = torch.full((3, 3), -0.1, dtype=torch.float64, requires_grad=True)
    score = torch.tensor([1.0, 5.0, 2.0])
    rollout = rollout_of([3, 0, 1]).with_rewards(price, final=score, ref_logprobs=torch.zeros(3, 3))
    expected = [[-0.1, -0.1, 0.9], [0.0, 0.0, 0.0], [1.9, 0.0, 0.0]]
    assert_close(rollout.rewards, torch.tensor(expected, dtype=torch.float64))
    assert not rollout.rewards.requires_grad
    assert_close(rollout.ref_logprobs, torch.zeros(3, 3))


def test_rewards_without_a_score_keep_the_reference() -> None:
    rollout = rollout_of([2, 1])
    paid = rollout.with_rewards(torch.ones(2, 2))
    assert paid.rewards.tolist() == [[1.0, 1.0], [1.0, 0.0]]
    assert paid.ref_logprobs is rollout.ref_logprobs
    with pytest.raises(ValueError, match="final: got shape"):
        rollout.with_rewards(torch.ones(2, 2), final=torch.ones(2, 2))
    with pytest.raises(ValueError, match="per_step: got shape"):
        rollout.with_rewards(torch.ones(2))


def test_values_look_one_real_step_ahead() -> None:
    junk = torch.tensor([[1.0, 2.0, 3.0], [4.0, 9.0, 9.0], [9.0, 9.0, 9.0]])
    rollout = rollout_of([3, 1, 0]).with_values(junk)
    assert rollout.values is not None
    assert rollout.next_values is not None
    assert rollout.values.tolist() == [[1, 2, 3], [4, 0, 0], [0, 0, 0]]
    assert rollout.next_values.tolist() == [[2, 3, 0], [0, 0, 0], [0, 0, 0]]


def test_values_of_a_truncated_row_are_refused() -> None:
    mask = mask_of([2, 1])
    cut = rollout_of([2, 1], terminated=torch.zeros_like(mask), truncated=last_of(mask))
    with pytest.raises(ValueError, match="truncated: got 2 truncated steps"):
        cut.with_values(torch.ones(2, 2))


def test_flatten_gives_one_row_per_real_step() -> None:
    pixels = torch.arange(2 * 3 * 4).view(2, 3, 4)
    rollout = rollout_of([3, 1], context={"pixels": pixels})
    flat = rollout.flatten()
    assert len(flat) == 4
    assert flat.mask.shape == (4, 1)
    assert bool(flat.mask.all())
    assert_close(flat.rewards[:, 0], rollout.rewards[rollout.mask])
    assert flat.terminated[:, 0].tolist() == [F, F, T, T]
    assert_close(flat.context["pixels"][:, 0], torch.stack([pixels[0, 0], pixels[0, 1], pixels[0, 2], pixels[1, 0]]))
    with pytest.raises(ValueError, match=r"context\['prompt'\].*leading dims"):
        rollout_of([3, 1], context={"prompt": torch.ones(2, 7)}).flatten()


def test_actions_may_be_vectors_and_masks_may_not() -> None:
    rollout = rollout_of([3, 1], context={"states": torch.zeros(2, 3)})
    vectors = replace(rollout, actions=torch.arange(12.0).view(2, 3, 2))
    assert vectors.flatten().actions[:, 0].tolist() == [[0.0, 1.0], [2.0, 3.0], [4.0, 5.0], [6.0, 7.0]]
    assert vectors.select(torch.tensor([1])).actions.shape == (1, 3, 2)
    with pytest.raises(ValueError, match="rewards"):
        replace(rollout, rewards=torch.zeros(2, 3, 2))


def test_rollouts_compare_by_identity() -> None:
    rollout = rollout_of([1])
    assert rollout in [rollout]
    assert rollout != rollout_of([1])
    assert rollout in {rollout}
