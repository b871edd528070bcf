"""Per-step losses, all to MINIMISE. How they are averaged is the separate choice of `tensors.aggregate`."""

import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.rl.tensors import check_shape


def policy_gradient_loss(logprobs: Tensor, advantages: Tensor) -> Tensor:
    """L = −A · log π(a|s), whose gradient is minus the policy gradient (Williams 1992, "REINFORCE").

    Args:
        logprobs: any shape, nats, of the actions taken.
        advantages: the same shape; constants (detached here).

    Returns:
        The same shape; a loss. Gradient flows through `logprobs`.

    Raises:
        ValueError: if the shapes differ.
    """
    check_shape("advantages", advantages, logprobs.shape)
    return -advantages.detach() * logprobs


def ppo_clip_loss(
    logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, *, clip_low: float, clip_high: float
) -> Tensor:
    """L = max(−Aρ, −A·clip(ρ, 1−ε_low, 1+ε_high)), with ρ = exp(log π − log π_old).

    Schulman et al. 2017, "Proximal Policy Optimization", Eq. 7; two bounds after Yu et al. 2025, "DAPO", Sec.
    3.1. The gradient is 0 where the ratio has already gone too far in the direction that the advantage asks
    for.

    Args:
        logprobs: any shape, nats, of the policy being trained.
        old_logprobs: the same shape, of the policy that acted; detached here.
        advantages: the same shape; detached here.
        clip_low: ε_low in [0, 1].
        clip_high: ε_high ≥ 0.

    Returns:
        The same shape; a loss. Gradient flows through `logprobs`.

    Raises:
        ValueError: if the shapes differ.
    """
    check_shape("old_logprobs", old_logprobs, logprobs.shape)
    check_shape("advantages", advantages, logprobs.shape)
    ratio = torch.exp(logprobs - old_logprobs.detach())
    gain = -advantages.detach()
    return torch.maximum(gain * ratio, gain * ratio.clamp(1.0 - clip_low, 1.0 + clip_high))


def truncated_importance(logprobs: Tensor, sampler_logprobs: Tensor, *, cap: float) -> Tensor:
    """min(π/μ, C) per step: the weight of an action that a sampler μ drew which isn't quite the policy π.

    A sampler rounds otherwise than the trainer (folded weights, another kernel, another engine), and what is meant as
    on-policy learning isn't. Multiplied into the advantages, the weight corrects that; truncation bounds its variance
    (Espeholt et al. 2018, "IMPALA", Sec. 4.1; Yao et al. 2025, "Your Efficient RL Framework Secretly Brings You
    Off-Policy RL Training").

    Args:
        logprobs: [B,T] nats, of π before the update.
        sampler_logprobs: [B,T] nats, of μ.
        cap: C ≥ 1.

    Returns:
        [B,T] in (0, C], a constant; 1 where both agree.

    Raises:
        ValueError: if the shapes differ or cap is below 1.
    """
    check_shape("sampler_logprobs", sampler_logprobs, logprobs.shape)
    if cap < 1:
        raise ValueError(f"cap: got {cap}; use at least 1, or even an exact sampler's actions lose weight")
    return (logprobs - sampler_logprobs).detach().exp().clamp(max=cap)


def clipped_value_loss(values: Tensor, old_values: Tensor | None, returns: Tensor, *, clip: float | None) -> Tensor:
    """L = ½ max((V − R)², (V_clip − R)²), with V_clip = V_old + clip(V − V_old, ±clip).

    Huang et al. 2024, "The N+ Implementation Details of RLHF with PPO"; first in OpenAI Baselines' PPO2.

    Args:
        values: any shape, return units, of the critic being trained.
        old_values: the same shape, at the time of acting; detached here. May be None when `clip` is.
        returns: the same shape, the regression target; detached here.
        clip: the largest useful move, return units; None for the plain ½(V − R)².

    Returns:
        The same shape; a loss ≥ 0. Gradient flows through `values`.

    Raises:
        ValueError: if the shapes differ, or `clip` is given without `old_values`.
    """
    check_shape("returns", returns, values.shape)
    returns = returns.detach()
    plain = (values - returns).square()
    if clip is None:
        return 0.5 * plain
    if old_values is None:
        raise ValueError(f"old_values: got None with clip={clip}; give the values at acting time, or clip=None")
    check_shape("old_values", old_values, values.shape)
    old = old_values.detach()
    clipped = old + (values - old).clamp(-clip, clip)
    return 0.5 * torch.maximum(plain, (clipped - returns).square())


def q_learning_loss(q: Tensor, actions: Tensor, targets: Tensor, *, huber_delta: float | None = 1.0) -> Tensor:
    """L = Huber_δ(Q(s, a) − y): ½e² for |e| ≤ δ, else δ(|e| − ½δ) (Mnih et al. 2015, Methods).

    Args:
        q: [..., A] action values.
        actions: [...] int64, the actions taken.
        targets: [...] from `td_target`; detached here.
        huber_delta: δ > 0, return units; beyond it the gradient is constant. None: ½e² everywhere.

    Returns:
        [...]; a loss ≥ 0. Gradient flows through q of the actions taken only.

    Raises:
        ValueError: if the shapes differ or huber_delta is not positive.
    """
    errors = _errors(q, actions, targets.detach())
    slopes = _slopes(errors, huber_delta)
    return slopes * (errors - 0.5 * slopes)


def q_learning_gradient(
    q: Tensor, actions: Tensor, targets: Tensor, *, huber_delta: float | None = 1.0
) -> tuple[Tensor, Tensor]:
    """The mean of `q_learning_loss` and its derivative by q, without a graph: a small network's layers cost no more
    than autograd's walk through these five operations.

    Args:
        q: [N,A]; the rest as in `q_learning_loss`.

    Returns:
        (loss [], ∂loss/∂q [N,A], which is 0 but at the actions taken).
    """
    errors = _errors(q, actions, targets)
    slopes = _slopes(errors, huber_delta)
    loss = torch.dot(slopes, errors - 0.5 * slopes) / len(q)
    return loss, torch.zeros_like(q).scatter_(1, actions[:, None], slopes[:, None] / len(q))


def _errors(q: Tensor, actions: Tensor, targets: Tensor) -> Tensor:
    check_shape("actions", actions, q.shape[:-1])
    check_shape("targets", targets, q.shape[:-1])
    return q.gather(-1, actions[..., None]).squeeze(-1) - targets


def _slopes(errors: Tensor, huber_delta: float | None) -> Tensor:
    """s = dL/de: e, no longer than δ. The loss is s · (e − ½s), on both sides of δ."""
    if huber_delta is None:
        return errors
    if huber_delta <= 0:
        raise ValueError(f"huber_delta: got {huber_delta}; use a positive number, or None for the squared error")
    return errors.clamp(-huber_delta, huber_delta)


def categorical_entropy(logits: Tensor) -> Tensor:
    """H = −Σ_a π(a) log π(a), π = softmax(logits). A bonus: subtract `entropy_coef · H` from a loss.

    Args:
        logits: [..., A]; −inf forbids an action and contributes 0, in the gradient too.

    Returns:
        [...] nats, in [0, ln A]. Gradient flows through `logits`.
    """
    logprobs = torch.log_softmax(logits, dim=-1)
    # 0 · (−inf) is NaN, forward and backward; the smallest finite number makes it 0.
    return -(logprobs.exp() * logprobs.clamp(min=torch.finfo(logprobs.dtype).min)).sum(dim=-1)


def pairwise_loss(chosen: Tensor, rejected: Tensor, margin: float | Tensor = 0.0, centering: float = 0.0) -> Tensor:
    """L = −log σ(r_c − r_r − margin) + centering · (r_c + r_r)², the Bradley–Terry likelihood; ln 2 at a tie.

    Ouyang et al. 2022, "InstructGPT", Eq. 1; margin after Touvron et al. 2023, "Llama 2", Eq. 2; centring
    after Eisenstein et al. 2023, "Helping or Herding?", because the likelihood fixes scores only up to a
    constant.

    Args:
        chosen: [N] scores of the preferred completions.
        rejected: [N] scores of the others.
        margin: by how much the chosen one should win, score units; a number or [N].
        centering: η ≥ 0; 0.01 is customary.

    Returns:
        [N] per pair, nats; a loss. Gradient flows through both scores.

    Raises:
        ValueError: if the shapes differ.
    """
    check_shape("rejected", rejected, chosen.shape)
    if isinstance(margin, Tensor):
        check_shape("margin", margin, chosen.shape)
    return -F.logsigmoid(chosen - rejected - margin) + centering * (chosen + rejected).square()


def dpo_loss(chosen: Tensor, rejected: Tensor, ref_chosen: Tensor, ref_rejected: Tensor, *, beta: float) -> Tensor:
    """L = −log σ(β[(log π_c − log π_ref,c) − (log π_r − log π_ref,r)]), the Bradley–Terry likelihood of the reward that
    a policy implies, r = β log(π/π_ref); ln 2 where π = π_ref.

    Rafailov et al. 2023, "Direct Preference Optimization", Eq. 7.

    Args:
        chosen: [N] log π of the preferred completions, summed over their tokens, nats.
        rejected: [N] of the others.
        ref_chosen: [N] under the frozen reference; detached here.
        ref_rejected: [N]; detached here.
        beta: β > 0; the optimum is that of KL-regularised reward maximisation at this price.

    Returns:
        [N] per pair, nats; a loss. Gradient flows through `chosen` and `rejected`.

    Raises:
        ValueError: if the shapes differ.
    """
    check_shape("ref_chosen", ref_chosen, chosen.shape)
    check_shape("ref_rejected", ref_rejected, chosen.shape)
    return pairwise_loss(beta * (chosen - ref_chosen.detach()), beta * (rejected - ref_rejected.detach()))
