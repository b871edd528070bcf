"""TRL's trainers on a config's work: arguments that they share, and `bench_policy.py`'s online ones, timed by phase.

`ppo` needs trl 1.10 or older, `online` (GRPO and RLOO) runs on the newest. A phase is timed by wrapping the functions
in which the trainers spend it; what is left of an iteration is its update.
"""

import os
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import contextmanager
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig, inject_adapter_in_model
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from pipeline.config import Config, LoopConfig
from pipeline.lm.sources import resolve

Beat = Callable[[dict[str, float]], None]


class Phases:
    """Seconds by phase since the last report."""

    def __init__(self, beat: Beat) -> None:
        self._beat = beat
        self.tokens = 0.0
        self._seconds: dict[str, float] = defaultdict(float)
        self._start: float | None = None

    @contextmanager
    def __call__(self, phase: str) -> Any:
        start = now()
        yield
        self._seconds[phase] += now() - start

    def wrap(self, owner: Any, name: str, phase: Callable[..., str | None]) -> None:
        """Time every call of `owner.name` for which `phase(*arguments)` names one."""
        inner = getattr(owner, name)

        def timed(*args: Any, **kwargs: Any) -> Any:
            which = phase(*args, **kwargs)
            if which is None:
                return inner(*args, **kwargs)
            with self(which):
                return inner(*args, **kwargs)

        setattr(owner, name, timed)

    def turn(self) -> None:
        """An iteration is over, or none has begun: report, wait, start the next."""
        if self._start is None:
            self._beat({})
        else:
            total = now() - self._start
            update = total - sum(self._seconds.values())
            self._beat({**self._seconds, "update": update, "total": total, "tokens": self.tokens})
        self._seconds.clear()
        self._start = now()


def now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def half(config: Config) -> bool:
    """Whether both sides compute in bf16."""
    return config.model.device == "cuda" or config.model.dtype == "bfloat16"


def base(config: Config) -> tuple[str, dict[str, Any], Any]:
    """The model's folder, how it is loaded, its tokenizer."""
    folder = resolve(config.model.name, sha256=config.model.sha256, cache_dir=config.model.cache_dir)
    dtype = torch.bfloat16 if half(config) else torch.float32
    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.convert_ids_to_tokens(0)  # its PPO masks by this token: not the end's
    return folder, {"dtype": dtype}, tokenizer


def lora(config: Config, task: str) -> LoraConfig | None:
    """The adapter's shape as PEFT has it; None = every weight learns."""
    shape = config.lora
    if shape is None:
        return None
    return LoraConfig(r=shape.r, lora_alpha=shape.alpha, target_modules=shape.targets, task_type=task)


def classifier(folder: str, load: dict[str, Any], tokenizer: Any) -> Any:
    """The base with a fresh scalar head."""
    model: Any = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=1, **load)
    model.config.pad_token_id = tokenizer.pad_token_id
    return model


def scorer(folder: str, load: dict[str, Any], tokenizer: Any) -> Any:
    return classifier(folder, load, tokenizer).requires_grad_(False).eval()


def common(config: Config, folder: str, rate: float, schedule: str) -> dict[str, Any]:
    """Trainer arguments that all trainers share: nothing saved, nothing reported, no checkpointed activations."""
    return {
        "output_dir": folder,
        "learning_rate": rate,
        "lr_scheduler_type": schedule,
        "gradient_checkpointing": False,
        "bf16": half(config),
        "use_cpu": config.model.device == "cpu",
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "seed": config.seed,
    }


def supervised(config: Config, cfg: LoopConfig, folder: str) -> dict[str, Any]:
    """Trainer arguments of SFT and of the reward model, as `stages/fit.py` reads the same section."""
    return {
        **common(config, folder, cfg.learning_rate, "linear"),
        "warmup_steps": cfg.warmup_fraction,
        "num_train_epochs": cfg.epochs,
        "per_device_train_batch_size": cfg.microbatch_size,
        "gradient_accumulation_steps": max(1, cfg.batch_size // cfg.microbatch_size),
        "max_length": None,
        "weight_decay": cfg.weight_decay,
        "max_grad_norm": cfg.max_grad_norm,
        "logging_strategy": "no",
    }


def trained(trainer: Any) -> tuple[Any, float]:
    """The model after training, to evaluate, and the seconds it took."""
    start = now()
    trainer.train()
    return trainer.model.eval(), now() - start


def ppo(config: Config, prompts: list[list[int]], stop: int | None, beat: Beat, scratch: str) -> None:
    """PPO with a value model that is a LoRA of its own (by default it would be trained whole)."""
    os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"
    from trl.experimental.ppo import PPOConfig, PPOTrainer, ppo_trainer

    cfg = config.policy
    folder, load, tokenizer = base(config)
    policy = AutoModelForCausalLM.from_pretrained(folder, **load)
    value = scorer(folder, load, tokenizer)
    if (shape := lora(config, "SEQ_CLS")) is None:
        raise SystemExit("this comparison is of adapters: give lora a section")
    inject_adapter_in_model(shape, value)
    value.score.requires_grad_(True)
    arguments = PPOConfig(
        **common(config, scratch, cfg.learning_rate, "constant"),
        per_device_train_batch_size=cfg.prompts_per_step,
        gradient_accumulation_steps=1,
        num_mini_batches=cfg.prompts_per_step // cfg.minibatch_size,
        num_ppo_epochs=cfg.epochs,
        total_episodes=cfg.prompts_per_step * 1000,
        local_rollout_forward_batch_size=cfg.prompts_per_step,
        num_sample_generations=0,
        response_length=cfg.sampling.max_new_tokens,
        temperature=cfg.sampling.temperature,
        stop_token_id=stop,
        kl_coef=cfg.kl_coef,
        logging_steps=1,
    )
    phases = Phases(beat)
    repeated = [prompts[index % len(prompts)] for index in range(max(len(prompts), cfg.prompts_per_step))]

    class Timed(PPOTrainer):  # type: ignore[misc]
        def log(self, *args: Any, **kwargs: Any) -> None:  # once an iteration
            phases.turn()

    trainer = Timed(
        args=arguments,
        processing_class=tokenizer,
        model=policy,
        ref_model=None,
        reward_model=scorer(folder, load, tokenizer),
        value_model=value,
        train_dataset=Dataset.from_list([{"input_ids": ids} for ids in repeated]),
        peft_config=lora(config, "CAUSAL_LM"),
    )
    phases.wrap(ppo_trainer, "batch_generation", lambda *_, **__: "generate")
    phases.wrap(ppo_trainer, "forward", lambda *_, **__: None if torch.is_grad_enabled() else "reference")
    phases.wrap(ppo_trainer, "get_reward", lambda model, *_, **__: "value" if model is value else "reward")
    truncate = ppo_trainer.truncate_response

    def counted(*args: Any) -> torch.Tensor:
        responses = truncate(*args)
        phases.tokens = float((responses != tokenizer.pad_token_id).sum())
        return responses  # type: ignore[no-any-return]

    ppo_trainer.truncate_response = counted
    phases.tokens = float(cfg.prompts_per_step * cfg.sampling.max_new_tokens)
    phases.turn()
    trainer.train()


def online(config: Config, prompts: list[list[int]], stop: int | None, beat: Beat, scratch: str) -> None:
    """GRPO or RLOO, whichever the config's algorithm is, with a sequence classifier as the reward."""
    from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer

    cfg = config.policy
    settings, trainer_class = {"grpo": (GRPOConfig, GRPOTrainer), "rloo": (RLOOConfig, RLOOTrainer)}[cfg.algorithm]
    folder, load, tokenizer = base(config)
    policy = AutoModelForCausalLM.from_pretrained(folder, **load)
    policy.generation_config.eos_token_id = stop
    completions = cfg.prompts_per_step * cfg.group_size
    arguments = settings(
        **common(config, scratch, cfg.learning_rate, "constant"),
        per_device_train_batch_size=cfg.minibatch_size,
        gradient_accumulation_steps=1,
        steps_per_generation=completions // cfg.minibatch_size,
        num_generations=cfg.group_size,
        num_iterations=cfg.epochs,
        max_completion_length=cfg.sampling.max_new_tokens,
        temperature=cfg.sampling.temperature,
        top_k=0,
        beta=cfg.kl_coef,
        max_steps=10**6,
        logging_strategy="no",
        generation_kwargs={} if stop is not None else {"min_new_tokens": cfg.sampling.max_new_tokens},
    )
    phases = Phases(beat)

    class Timed(trainer_class):  # type: ignore[misc, valid-type]
        def _generate_and_score_completions(self, inputs: Any) -> Any:  # once an iteration
            phases.turn()
            out = super()._generate_and_score_completions(inputs)
            phases.tokens = float(out["completion_mask"].sum())
            return out

    trainer = Timed(
        model=policy,
        reward_funcs=scorer(folder, load, tokenizer),
        args=arguments,
        train_dataset=Dataset.from_list([{"prompt": tokenizer.decode(ids)} for ids in prompts]),
        processing_class=tokenizer,
        reward_processing_classes=tokenizer,
        peft_config=lora(config, "CAUSAL_LM"),
    )
    phases.wrap(trainer, "_generate", lambda *_, **__: "generate")
    phases.wrap(trainer, "_calculate_rewards", lambda *_, **__: "reward")
    phases.wrap(
        trainer,
        "_get_per_token_logps_and_entropies",
        lambda *_, **__: None if torch.is_grad_enabled() else "reference",
    )
    trainer.train()
