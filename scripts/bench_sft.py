"""Supervised fine-tuning beside TRL's SFTTrainer: same base, rows, tokens, LoRA, batch, rate and epochs.

    python scripts/bench_sft.py configs/quickstart.yaml --repeats 3 --json FILE

Each side runs in processes of its own, in turns. Printed: loss per taught token on held-out rows after training, tokens
a second (prompt and answer, each once an epoch), peak memory.
"""

import tempfile
from typing import Any

from beside.turns import both_halves, compare, timed

from pipeline.config import Config

SETTINGS = ["lora.layers=all", "sft.batch_size=16", "sft.microbatch_size=16"]


def encode(config: Config, limit: int | None) -> dict[str, list[Any]]:
    """Training and held-out rows as (ids, taught)."""
    from pipeline.data.splits import split_by_prompt
    from pipeline.stages.inputs import Source, encode_demonstrations, load_backbone, read

    chat, cfg = load_backbone(config).chat, config.sft
    source = read(config, cfg.data, "demonstrations")
    parts = split_by_prompt(source.rows, {"train": 1 - cfg.validation, "validation": cfg.validation}, seed=config.seed)
    train, held = (
        encode_demonstrations(chat, Source(parts[name], source.bad, {}), cfg.max_length)
        for name in ("train", "validation")
    )
    return {name: [(e.ids, e.supervised) for e in rows] for name, rows in (("train", train[:limit]), ("held", held))}


def speed(config: Config, work: dict[str, list[Any]], seconds: float) -> dict[str, float]:
    tokens = sum(len(ids) for ids, _ in work["train"]) * config.sft.epochs
    return {"seconds": seconds, "tokens_per_second": tokens / seconds}


def ours(config: Config, work: dict[str, list[Any]]) -> dict[str, Any]:
    import torch

    from pipeline.lm.chat import Encoded
    from pipeline.stages.fit import Task, fit
    from pipeline.stages.inputs import load_backbone
    from pipeline.stages.sft import mean_nll, nll

    torch.manual_seed(config.seed)
    train, held = ([Encoded(*row) for row in work[name]] for name in ("train", "held"))
    backbone = load_backbone(config)
    backbone.roles.add("sft")
    task = Task(
        examples=train,
        length=lambda example: len(example.ids),
        weight=lambda example: sum(example.supervised),
        loss=lambda batch: nll(backbone, "sft", batch),
        validate=lambda: {"loss": 0.0},  # choosing an epoch is not part of what is compared
        metric="loss",
    )
    parameters, cfg = backbone.roles.train_only("sft"), config.sft
    options: Any = {"name": "sft", "seed": config.seed, "visible": False}
    _, seconds = timed("sft", lambda out, kept: fit(task, parameters, cfg, out, checkpoints=kept, **options))
    return speed(config, work, seconds) | {"loss": mean_nll(backbone, "sft", held, 8)}


def trl(config: Config, work: dict[str, list[Any]]) -> dict[str, Any]:
    import torch
    from beside.trl_sides import base, lora, supervised, trained
    from datasets import Dataset
    from transformers import AutoModelForCausalLM
    from trl import SFTConfig, SFTTrainer

    name, load, tokenizer = base(config)
    rows = [
        {"input_ids": ids, "labels": [token if flag else -100 for token, flag in zip(ids, taught, strict=True)]}
        for ids, taught in work["train"]
    ]
    with tempfile.TemporaryDirectory() as folder:
        options = SFTConfig(**supervised(config, config.sft, folder), dataset_kwargs={"skip_prepare_dataset": True})
        model: Any = AutoModelForCausalLM.from_pretrained(name, **load)
        dataset = Dataset.from_list(rows)
        shape = lora(config, "CAUSAL_LM")
        trainer = SFTTrainer(model, options, train_dataset=dataset, processing_class=tokenizer, peft_config=shape)
        model, seconds = trained(trainer)
    total = count = 0.0
    with torch.no_grad():
        for ids, taught in work["held"]:
            tokens = torch.tensor([ids], device=model.device)
            table = model(input_ids=tokens).logits[0, :-1].float().log_softmax(-1)
            said = table.gather(1, tokens[0, 1:, None]).squeeze(1)
            flags = torch.tensor(taught[1:], device=said.device)
            total -= said[flags].sum().item()
            count += int(flags.sum())
    return speed(config, work, seconds) | {"loss": total / count}


if __name__ == "__main__":
    compare(
        __doc__,
        SETTINGS,
        encode,
        both_halves(ours, trl),
        {"held-out loss": lambda run: f"{run['loss']:.3f}"},
    )
