"""The longest possible batch, first: what doesn't fit into memory shows at the start of a stage, not hours into it."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from pipeline.config import LoopConfig
from pipeline.lm.backbone import Backbone
from pipeline.lm.generate import give_back
from pipeline.lm.reward import RewardModel
from pipeline.rl.gradients import clear_gradients
from pipeline.rundir import RunError
from pipeline.stages.fit import Task
from pipeline.stages.learner import Learner

NEVER = -1  # a stop token that no model draws


def wanted(backbone: Backbone, prove_memory: str) -> bool:
    """Whether to try it: where the user says so, or on a device whose memory ends sharply."""
    return prove_memory == "always" or (prove_memory == "auto" and backbone.device.type == "cuda")


@contextmanager
def fits(stage: str) -> Iterator[None]:
    """Run the block without moving torch's random numbers.

    Raises:
        RunError: the memory doesn't suffice; says what to lower.
    """
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    try:
        with torch.random.fork_rng(devices):
            yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise RunError(
            f"{stage}: the longest batch doesn't fit into memory ({str(error).splitlines()[0]}); lower "
            f"{stage}.microbatch_size, or set model.gradient_checkpointing, lora.layers: upper or model.quantization: "
            "4bit; `align plan` tells what each saves"
        ) from None


def prove_fit(stage: str, task: Task, parameters: Sequence[Any], cfg: LoopConfig) -> None:
    """Forward and backward over the longest examples of a supervised stage; nothing is stepped."""
    rows = min(cfg.microbatch_size, cfg.batch_size)
    longest = sorted(task.examples, key=task.length, reverse=True)[:rows]
    with fits(stage):
        task.loss(longest).backward()  # type: ignore[no-untyped-call]
    clear_gradients(parameters)
    give_back()


def prove_policy(learner: Learner, prompts: Sequence[list[int]]) -> None:
    """Sample completions of full length for the longest prompts, score them, and run one microbatch forward and
    backward; nothing is stepped."""
    cfg = learner.cfg
    policy, backbone = learner.policy, learner.policy.backbone
    longest = sorted(prompts, key=len, reverse=True)[: cfg.prompts_per_step]
    generator = torch.Generator(backbone.device).manual_seed(0)
    stop, backbone.chat.stop_ids = backbone.chat.stop_ids, (NEVER,)
    try:
        with fits("policy"):
            rollout = policy.generate(
                longest,
                group_size=cfg.group_size,
                max_new_tokens=cfg.sampling.max_new_tokens,
                generator=generator,
            )
            if scorer := next((name for name in backbone.heads if name not in ("critic", "policy")), None):
                RewardModel(backbone, scorer).score(rollout, batch_size=2 * cfg.microbatch_size)
            part = rollout.select(torch.arange(min(cfg.microbatch_size, len(rollout)), device=backbone.device))
            found = policy.evaluate(part.context, part.actions)
            total = found.logprobs.sum() + (0.0 if found.values is None else found.values.sum())
            total.backward()  # type: ignore[no-untyped-call]
    finally:
        backbone.chat.stop_ids = stop
    clear_gradients(learner.parameters)
    if backbone.lower is not None:
        backbone.lower.forget()
