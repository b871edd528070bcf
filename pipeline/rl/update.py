"""The only optimiser loop over Rollouts: epochs × minibatches × microbatches.

CartPole and language models go through the same `update`. A minibatch is one optimiser step; its microbatches
only save memory: all denominators are those of the whole minibatch, so the split changes neither gradient nor
statistics.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from pipeline.rl.gradients import clear_gradients, clip_gradients
from pipeline.rl.kl import kl_k3
from pipeline.rl.objective import Evaluation, Minibatch, Objective, Policy, per_step_losses
from pipeline.rl.rollout import Rollout
from pipeline.rl.tensors import aggregate, check_shape, denominator, masked_mean, masked_sum
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
    return _summarise(history) | _explained_variance(whole) | counts if statistics else counts


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
        evaluation = policy.evaluate(chunk.context, chunk.actions)
        for name, value in zip(("logprobs", "entropy", "values"), evaluation, strict=True):
            if value is not None:
                check_shape(f"policy.evaluate().{name}", value, chunk.mask.shape)
        losses = {
            name: aggregate(value, chunk.mask, objective.aggregate, denominator=divisor)
            for name, value in per_step_losses(evaluation, chunk, objective, train_policy).items()
            if measure or name == "loss"
        }
        backward(losses["loss"])
        with torch.no_grad():
            for name, value in losses.items():
                totals[name] = totals.get(name, 0) + value.detach()
            if not measure:
                continue
            for name, value in _measures(evaluation, chunk, objective, train_policy).items():
                totals[name] = totals.get(name, 0) + masked_sum(value, chunk.mask) / steps
            if train_policy:
                ratio = _ratio(evaluation, chunk)
                error = (ratio - 1).abs().max()
                largest = torch.where(chunk.mask, ratio, 0.0).max()  # the 1 of padding is no ratio
                for name, value in (("policy/ratio_max", largest), ("ratio_error", error)):
                    maxima[name] = torch.maximum(maxima.get(name, value), value)
    return totals, maxima


def _combined(
    totals: dict[str, Tensor], maxima: dict[str, Tensor], parameters: Sequence[Tensor], processes: Processes
) -> dict[str, float]:
    """Everybody's gradients, in place, and figures."""
    numbers = torch.stack([value.double() for value in (totals | maxima).values()])
    processes.combine(parameters, numbers[: len(totals)], numbers[len(totals) :])
    # One transfer for all numbers: every .item() would wait for the device.
    return dict(zip(totals | maxima, numbers.tolist(), strict=True))


def _ratio(evaluation: Evaluation, chunk: Minibatch) -> Tensor:
    """ρ = π_new / π_old, 1 at padding."""
    return torch.where(chunk.mask, evaluation.logprobs - chunk.old_logprobs, 0.0).exp()


def _measures(evaluation: Evaluation, chunk: Minibatch, objective: Objective, train_policy: bool) -> dict[str, Tensor]:
    """Per-step statistics that are plain means over real steps, whatever the objective's normaliser."""
    measures: dict[str, Tensor] = {}
    if train_policy:
        ratio = _ratio(evaluation, chunk)
        if evaluation.entropy is not None:
            measures["policy/entropy"] = evaluation.entropy
        # The samples are the OLD policy's, so the unbiased KL(old ‖ new) has the old log-probs in front.
        measures["policy/approx_kl"] = kl_k3(chunk.old_logprobs, evaluation.logprobs)
        if objective.policy_loss == "ppo_clip":
            outside = (ratio < 1 - objective.clip_low) | (ratio > 1 + objective.clip_high)
            measures["policy/clip_fraction"] = outside.to(ratio.dtype)
    if chunk.returns is not None and chunk.old_values is not None and objective.value_clip is not None:
        assert evaluation.values is not None  # per_step_losses has refused a missing critic
        moved = (evaluation.values - chunk.old_values).abs()
        measures["value/clip_fraction"] = (moved > objective.value_clip).to(moved.dtype)
    return measures


def _summarise(history: list[dict[str, float]]) -> dict[str, float]:
    if not history:
        return {}
    summary = {name: sum(stats[name] for stats in history) / len(history) for name in history[0]}
    if "ratio_error" in summary:
        del summary["ratio_error"]
        summary["policy/first_ratio_error"] = history[0]["ratio_error"]
        summary["policy/ratio_max"] = max(stats["policy/ratio_max"] for stats in history)
    return summary


def _explained_variance(whole: Minibatch) -> dict[str, float]:
    """1 − Var(R − V_old) / Var(R) over real steps; absent without a critic or a spread of returns."""
    if whole.returns is None or whole.old_values is None:
        return {}
    returns, residual = whole.returns.double(), (whole.returns - whole.old_values).double()
    spread = masked_mean((returns - masked_mean(returns, whole.mask)).square(), whole.mask)
    error = masked_mean((residual - masked_mean(residual, whole.mask)).square(), whole.mask)
    return {"value/explained_variance": float(1 - error / spread)} if spread > 0 else {}
