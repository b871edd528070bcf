"""The only optimiser loop over Rollouts: epochs × minibatches × microbatches.

CartPole and language models go through the same `update`. A minibatch is one optimiser step; its microbatches
only save memory: all denominators are those of the whole minibatch, so the split changes neither gradient nor
statistics.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import cast

import torch
from torch import Tensor

from pipeline.rl.gradients import clear_gradients, clip_gradients
from pipeline.rl.measures import explained_variance, extremes, measures, summary
from pipeline.rl.objective import Apart, Evaluation, Minibatch, Objective, Policy, per_step_losses
from pipeline.rl.rollout import Rollout
from pipeline.rl.tensors import aggregate, check_shape, denominator, masked_sum
from pipeline.rl.together import ALONE, Processes

__all__ = ["Evaluation", "Objective", "Policy", "update"]


def update(
    policy: Policy,
    optimizer: torch.optim.Optimizer,
    rollout: Rollout,
    advantages: Tensor,
    returns: Tensor | None,
    objective: Objective,
    *,
    epochs: int = 1,
    minibatch_size: int,
    microbatch_size: int | None = None,
    max_grad_norm: float = 1.0,
    target_kl: float | None = None,
    train_policy: bool = True,
    statistics: bool = True,
    group_size: int = 1,
    generator: torch.Generator | None = None,
    backward: Callable[[Tensor], None] = Tensor.backward,
    processes: Processes = ALONE,
) -> dict[str, float]:
    """Minimise `objective` on one rollout; the rows (or groups of them) are permuted afresh every epoch.

    Args:
        policy: re-evaluates actions; gets [b,t] of them, t ≤ T, for rows are sorted by length and trimmed.
        optimizer: its parameters are clipped together and stepped.
        rollout: what was done; log-probs at the temperature of acting.
        advantages: [B,T], constants.
        returns: [B,T] critic targets, or None without a critic.
        objective: which losses, at which weights.
        epochs: passes over the rollout, ≥ 1.
        minibatch_size: rows per optimiser step, ≥ 1.
        microbatch_size: rows per forward pass; None = minibatch_size.
        max_grad_norm: clip the joint gradient norm to this; math.inf for no clipping.
        target_kl: nats per step; a minibatch with a larger approx_kl is not stepped, nor any after it.
        train_policy: False leaves only the value loss, to warm the critic up.
        statistics: False leaves out what only a reader needs; on tiny networks that is half of the time. What
            decides (finite numbers, target_kl) is always measured.
        group_size: rows that stand side by side in the rollout and stay so, in one minibatch: a policy may compute
            what they have in common once. Where minibatch_size is no multiple of it, rows are permuted one by one.
        generator: source of the permutations.
        backward: how to backpropagate, e.g. `accelerator.backward`.
        processes: those that update the same weights on the same rollout, without empty rows; each evaluates a part.

    Returns:
        Means over minibatches (`policy/ratio_max`: the maximum), only the keys that apply: policy/loss,
        clip_fraction, approx_kl, ratio_max, first_ratio_error (max |ρ − 1| in the first minibatch), entropy,
        grad_norm, kl_loss; value/loss, clip_fraction, explained_variance (of the values at acting time);
        update/minibatches (steps taken), update/stopped_early (0 or 1), which also come without `statistics`.

    Raises:
        ValueError: if a size, shape or needed tensor is wrong.
        FloatingPointError: on a non-finite loss or gradient norm, before the step, gradients cleared.
    """
    whole = Minibatch.of(rollout, advantages, returns)
    micro = minibatch_size if microbatch_size is None else microbatch_size
    _check_sizes(epochs=epochs, minibatch_size=minibatch_size, microbatch_size=micro, group_size=group_size)
    _check_needs(whole, objective, train_policy)
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    history: list[dict[str, float]] = []
    stopped = False
    for epoch, number, batch in _minibatches(whole, epochs, minibatch_size, micro, group_size, generator):
        clear_gradients(parameters)
        measure = statistics or target_kl is not None
        passes = processes.batches(range(len(batch.mask)), micro)
        sums, maxima = _accumulate(policy, batch, passes, objective, train_policy, measure, backward)
        stats = _combined(sums, maxima, parameters, processes)
        norm = clip_gradients(parameters, max_grad_norm)
        _require_finite(stats.pop("loss"), norm, epoch, number, parameters)
        if train_policy:
            stats["policy/grad_norm"] = norm
        history.append(stats)
        stopped = target_kl is not None and stats.get("policy/approx_kl", 0.0) > target_kl
        if stopped:
            break
        optimizer.step()
    clear_gradients(parameters)
    counts = {"update/minibatches": float(len(history) - stopped), "update/stopped_early": float(stopped)}
    return summary(history) | explained_variance(whole) | counts if statistics else counts


def _check_sizes(**sizes: int) -> None:
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"{name}: got {size}; use a positive integer")


def _check_needs(whole: Minibatch, objective: Objective, train_policy: bool) -> None:
    """What the objective reads must be there."""
    if not train_policy and whole.returns is None:
        raise ValueError("returns: got None with train_policy=False; nothing is left to train, give critic targets")
    if whole.returns is not None and whole.old_values is None and objective.value_clip is not None:
        raise ValueError("rollout.values: got None with value_clip set; use rollout.with_values or value_clip=None")
    if train_policy and objective.kl_estimator is not None and whole.ref_logprobs is None:
        raise ValueError("rollout.ref_logprobs: got None with kl_estimator set; give them, or kl_estimator=None")


def _minibatches(
    whole: Minibatch, epochs: int, size: int, micro: int, group: int, generator: torch.Generator | None
) -> Iterator[tuple[int, int, Minibatch]]:
    """(epoch, number, rows longest first), leaving out minibatches without a real step."""
    lengths = whole.mask.sum(dim=1).cpu()
    if min(size, micro) >= len(lengths):  # one pass takes all rows: their order doesn't matter
        yield from ((epoch, 0, whole) for epoch in range(epochs) if lengths.any())
        return
    if size % group or len(lengths) % group:
        group = 1
    longest = lengths.view(-1, group).amax(dim=1)  # of each group
    ragged = bool((longest != longest[:1]).any())
    device = torch.device("cpu") if generator is None else generator.device
    for epoch in range(epochs):
        permutation = torch.randperm(len(longest), generator=generator, device=device).cpu()
        for number, groups in enumerate(torch.split(permutation, size // group)):
            if ragged:  # longest first: running out of memory shows at once, and neighbours pad each other least
                groups = groups[longest[groups].argsort(descending=True, stable=True)]
            if longest[groups[0]] > 0:
                yield epoch, number, whole.rows((groups[:, None] * group + torch.arange(group)).flatten())


def _require_finite(loss: float, norm: float, epoch: int, number: int, parameters: Iterable[Tensor]) -> None:
    """A NaN stepped once is in every weight; stop before, with the gradients cleared."""
    if math.isfinite(loss) and math.isfinite(norm):
        return
    clear_gradients(parameters)
    raise FloatingPointError(
        f"epoch {epoch}, minibatch {number}: got loss {loss}, gradient norm {norm}; this step was not taken. "
        "Lower the learning rate, or look for NaN in rewards, values or log-probs"
    )


def _accumulate(
    policy: Policy,
    batch: Minibatch,
    passes: Iterable[tuple[Sequence[int], bool]],
    objective: Objective,
    train_policy: bool,
    measure: bool,
    backward: Callable[[Tensor], None],
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Gradients of one minibatch, summed over this process's passes; returns sums, among them "loss", and maxima."""
    divisor = denominator(batch.mask, objective.aggregate, objective.max_length)
    steps = batch.mask.sum()
    totals: dict[str, Tensor] = {}
    maxima: dict[str, Tensor] = {}
    size = len(batch.mask)
    for rows, counts in passes:
        chunk = batch if len(rows) == size else batch.rows(torch.tensor(rows))
        if chunk.mask.shape[1] == 0:
            continue
        if not counts:
            chunk = replace(chunk, mask=torch.zeros_like(chunk.mask))
        for evaluation, part, acts in _parts(policy, chunk, train_policy):
            losses = {
                name: aggregate(value, part.mask, objective.aggregate, denominator=divisor)
                for name, value in per_step_losses(evaluation, part, objective, acts).items()
                if measure or name == "loss"
            }
            backward(losses["loss"])
            with torch.no_grad():
                for name, value in losses.items():
                    totals[name] = totals.get(name, 0) + value.detach()
                if not measure:
                    continue
                for name, value in measures(evaluation, part, objective, acts).items():
                    totals[name] = totals.get(name, 0) + masked_sum(value, part.mask) / steps
                for name, value in (extremes(evaluation, part) if acts else {}).items():
                    maxima[name] = torch.maximum(maxima.get(name, value), value)
    return totals, maxima


def _parts(policy: Policy, chunk: Minibatch, train_policy: bool) -> Iterator[tuple[Evaluation, Minibatch, bool]]:
    """What has a graph of its own: (the policy now, its targets, whether it acts), one after the other."""
    given = chunk.context, chunk.actions
    if not getattr(policy, "apart", False):  # isinstance takes a hundred times as long, and small networks notice
        yield _checked(policy.evaluate(*given), chunk), chunk, train_policy
        return
    policy = cast(Apart, policy)
    if train_policy:
        yield _checked(policy.acting(*given), chunk), replace(chunk, returns=None), True
    if chunk.returns is not None:  # nobody reads a critic's log-probs
        yield _checked(Evaluation(chunk.old_logprobs, None, policy.values(*given)), chunk), chunk, False


def _checked(evaluation: Evaluation, chunk: Minibatch) -> Evaluation:
    for name, value in zip(("logprobs", "entropy", "values"), evaluation, strict=True):
        if value is not None:
            check_shape(f"policy.evaluate().{name}", value, chunk.mask.shape)
    return evaluation


def _combined(
    totals: dict[str, Tensor], maxima: dict[str, Tensor], parameters: Sequence[Tensor], processes: Processes
) -> dict[str, float]:
    """Everybody's gradients, in place, and figures."""
    numbers = torch.stack([value.double() for value in (totals | maxima).values()])
    processes.combine(parameters, numbers[: len(totals)], numbers[len(totals) :])
    # One transfer for all numbers: every .item() would wait for the device.
    return dict(zip(totals | maxima, numbers.tolist(), strict=True))
