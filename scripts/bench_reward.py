"""Reward-model training beside TRL's RewardTrainer: same base, pairs, tokens, LoRA, batch, rate and epochs.

    python scripts/bench_reward.py configs/hh_harmless_cpu.yaml data_dir=FOLDER --repeats 3 --json FILE

Each side runs in processes of its own, in turns. Both start from the base model and are tested on the same pairs, split
by prompt (`reward.test`). Printed: accuracy with Wilson's interval, trained tokens a second, peak memory.
"""

import tempfile
from typing import Any

from beside.turns import both_halves, compare, timed

from pipeline.config import Config

SETTINGS = ["lora.layers=all", "reward.judge=0", "reward.validation=0"]


def encode(config: Config, limit: int | None) -> dict[str, list[Any]]:
    """Training and test pairs as (chosen, rejected) token ids."""
    from pipeline.stages.inputs import Source, encode_pairs, load_backbone, read
    from pipeline.stages.reward import split_pairs

    chat = load_backbone(config).chat
    source = read(config, config.reward.data, "preferences")
    parts = split_pairs(source.rows, config.reward, config.seed)
    train, test = (
        encode_pairs(chat, Source(parts[name], source.bad, {}), config.reward.max_length) for name in ("reward", "test")
    )
    return {name: [(p.chosen, p.rejected) for p in rows] for name, rows in (("train", train[:limit]), ("test", test))}


def speed(config: Config, pairs: dict[str, list[Any]], seconds: float) -> dict[str, float]:
    tokens = sum(len(chosen) + len(rejected) for chosen, rejected in pairs["train"]) * config.reward.epochs
    counts = {f"{name}_pairs": len(rows) for name, rows in pairs.items()}
    return {"seconds": seconds, "tokens_per_second": tokens / seconds, **counts}


def ours(config: Config, pairs: dict[str, list[Any]]) -> dict[str, Any]:
    import torch

    from pipeline.data.schema import Preference
    from pipeline.evaluation.reward_card import accuracy
    from pipeline.stages.inputs import EncodedPair, load_backbone
    from pipeline.stages.reward import train
    from pipeline.stages.scored_pairs import score_pairs

    row = Preference(prompt=(), chosen="", rejected="", margin=0.0, meta={}, where="")
    rows, test = ([EncodedPair(*pair, 0, 0.0, row) for pair in pairs[name]] for name in ("train", "test"))
    backbone = load_backbone(config)
    torch.manual_seed(config.seed)
    backbone.roles.add("sft")  # changes nothing: like TRL's, the reward model starts from the base
    # One pair to validate on: choosing an epoch is not part of what is compared.
    (model, _), seconds = timed(
        "reward", lambda out, kept: train(backbone, "reward", rows, test[:1], config, out, kept, seed=config.seed)
    )
    chosen, rejected = score_pairs(model, test, 2 * config.reward.microbatch_size)
    return accuracy((chosen - rejected).cpu().numpy()) | speed(config, pairs, seconds)


def trl(config: Config, pairs: dict[str, list[Any]]) -> dict[str, Any]:
    import torch
    from beside.trl_sides import base, classifier, lora, supervised, trained
    from datasets import Dataset
    from trl import RewardConfig, RewardTrainer

    from pipeline.evaluation.statistics import wilson

    name, load, tokenizer = base(config)
    model = classifier(name, load, tokenizer)
    rows = Dataset.from_list([{"chosen_ids": chosen, "rejected_ids": rejected} for chosen, rejected in pairs["train"]])
    with tempfile.TemporaryDirectory() as folder:
        centering = config.reward.centering or None
        options = RewardConfig(**supervised(config, config.reward, folder), center_rewards_coefficient=centering)
        shape = lora(config, "SEQ_CLS")
        trainer = RewardTrainer(model, options, train_dataset=rows, processing_class=tokenizer, peft_config=shape)
        model, seconds = trained(trainer)

    @torch.no_grad()
    def score(ids: list[int]) -> float:
        return model(input_ids=torch.tensor([ids], device=model.device)).logits.item()  # type: ignore[no-any-return]

    right = sum(score(chosen) > score(rejected) for chosen, rejected in pairs["test"])
    low, high = wilson(right, len(pairs["test"]))
    figures = {"accuracy": right / len(pairs["test"]), "accuracy_low": low, "accuracy_high": high}
    return figures | speed(config, pairs, seconds)


if __name__ == "__main__":
    compare(
        __doc__,
        SETTINGS,
        encode,
        both_halves(ours, trl),
        {
            "accuracy": lambda run: f"{run['accuracy']:.3f}",
            "95 %": lambda run: f"[{run['accuracy_low']:.3f}, {run['accuracy_high']:.3f}]",
        },
    )
