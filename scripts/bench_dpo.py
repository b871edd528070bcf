"""DPO beside TRL's DPOTrainer: same base, pairs, tokens, LoRA, batch, rate, beta and epochs.

    python scripts/bench_dpo.py configs/quickstart.yaml --limit 128 --repeats 3 --json FILE

Each side runs in processes of its own, in turns. Both start from the base model, which is their reference. Printed: the
loss on test pairs (`reward.test`), trained tokens a second (reference passes included), peak memory.
"""

import tempfile
from typing import Any

from beside.turns import both_halves, compare, timed

from pipeline.config import Config

SETTINGS = ["lora.layers=all", "reward.judge=0", "reward.validation=0", "dpo={microbatch_size: 8}"]
TESTED = 32  # pairs


def encode(config: Config, limit: int | None) -> dict[str, list[Any]]:
    """Training and test pairs as (prompt, chosen, rejected) token ids."""
    from pipeline.stages.inputs import EncodedPair, Source, encode_pairs, load_backbone, read
    from pipeline.stages.reward import split_pairs

    def parts_of(pair: EncodedPair) -> list[list[int]]:
        start = pair.prompt_length
        return [pair.chosen[:start], pair.chosen[start:], pair.rejected[start:]]

    chat = load_backbone(config).chat
    source = read(config, config.reward.data, "preferences")
    split = split_pairs(source.rows, config.reward, config.seed)
    train, test = (
        encode_pairs(chat, Source(split[name], source.bad, {}), config.reward.max_length) for name in ("reward", "test")
    )
    rows = {"train": train[:limit], "test": test[:TESTED]}
    return {name: [parts_of(pair) for pair in pairs] for name, pairs in rows.items()}


def speed(config: Config, pairs: dict[str, list[Any]], seconds: float) -> dict[str, float]:
    assert config.dpo is not None
    tokens = sum(2 * len(prompt) + len(chosen) + len(rejected) for prompt, chosen, rejected in pairs["train"])
    total = tokens * config.dpo.epochs
    return {"seconds": seconds, "tokens_per_second": total / seconds, "train_pairs": len(pairs["train"])}


def ours(config: Config, pairs: dict[str, list[Any]]) -> dict[str, Any]:
    import torch

    from pipeline.data.schema import Preference
    from pipeline.stages.dpo import Pair, dpo_task, remember_reference, validation
    from pipeline.stages.fit import fit
    from pipeline.stages.inputs import EncodedPair, load_backbone

    cfg = config.dpo
    assert cfg is not None
    row = Preference(prompt=(), chosen="", rejected="", margin=0.0, meta={}, where="")
    train, test = (
        [Pair(EncodedPair(p + c, p + r, len(p), 0.0, row)) for p, c, r in pairs[name]] for name in ("train", "test")
    )
    backbone = load_backbone(config)
    torch.manual_seed(config.seed)
    backbone.roles.add("sft")  # changes nothing: the reference is the base
    backbone.roles.clone("sft", "dpo")
    parameters = backbone.roles.train_only("dpo")
    # One pair to validate on: choosing an epoch is not part of what is compared.
    task = dpo_task(backbone, train, test[:1], cfg, visible=False)
    _, seconds = timed(
        "dpo",
        lambda out, kept: fit(
            task, parameters, cfg, out, name="dpo", seed=config.seed, checkpoints=kept, visible=False
        ),
    )
    remember_reference(backbone, test, cfg.microbatch_size, visible=False)
    return {"loss": validation(backbone, test, cfg)["loss"]} | speed(config, pairs, seconds)


def trl(config: Config, pairs: dict[str, list[Any]]) -> dict[str, Any]:
    from beside.trl_sides import base, lora, supervised, trained
    from datasets import Dataset
    from transformers import AutoModelForCausalLM
    from trl import DPOConfig, DPOTrainer

    cfg = config.dpo
    assert cfg is not None
    folder, load, tokenizer = base(config)
    model = AutoModelForCausalLM.from_pretrained(folder, **load)
    names = ("prompt_ids", "chosen_ids", "rejected_ids")
    rows = {
        name: Dataset.from_list([dict(zip(names, pair, strict=True)) for pair in pairs[name]])
        for name in ("train", "test")
    }
    with tempfile.TemporaryDirectory() as scratch:
        options = DPOConfig(**supervised(config, cfg, scratch), beta=cfg.beta)
        words = Dataset.from_list([{"prompt": "a", "chosen": "b", "rejected": "c"}])
        shape = lora(config, "CAUSAL_LM")
        trainer = DPOTrainer(model, args=options, train_dataset=words, processing_class=tokenizer, peft_config=shape)
        # It takes texts only; these are the same tokens as ours.
        trainer.train_dataset, trainer.eval_dataset = rows["train"], rows["test"]
        _, seconds = trained(trainer)
        loss = trainer.evaluate()["eval_loss"]
    return {"loss": loss} | speed(config, pairs, seconds)


if __name__ == "__main__":
    compare(
        __doc__,
        SETTINGS,
        encode,
        both_halves(ours, trl),
        {"loss": lambda run: f"{run['loss']:.4f}"},
    )
