"""Reward-model training beside TRL's RewardTrainer: same base, pairs, tokens, LoRA, batch, rate and epochs.

    python scripts/bench_reward.py configs/hh_harmless_cpu.yaml data_dir=FOLDER --repeats 3 --json FILE

Each side runs in processes of its own, in turns. Both start from the base model and are tested on the same pairs, split
by prompt (`reward.test`). Printed: accuracy with Wilson's interval, trained tokens a second, peak memory.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from pipeline.config import Config, load_config
from pipeline.rundir import peak_rss_mb

SIDES = ("ours", "trl")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config")
    parser.add_argument("overrides", nargs="*", help="KEY=VALUE, as for `align run`")
    parser.add_argument("--repeats", type=int, default=1, help="runs of each side, interleaved")
    parser.add_argument("--limit", type=int, help="train on this many pairs only: for speed, not for accuracy")
    parser.add_argument("--json", help="write every figure here")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--pairs", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    overrides = [*arguments.overrides, "reward.judge=0", "reward.validation=0", "logging.progress=false"]
    config = load_config(arguments.config, overrides)
    if arguments.side:
        pairs = json.loads(Path(arguments.pairs).read_text(encoding="utf-8"))
        figures = {"ours": ours, "trl": trl}[arguments.side](config, pairs)
        print(json.dumps(figures | {"peak_rss_mb": peak_rss_mb()}))
        return
    rows: dict[str, list[dict[str, Any]]] = {side: [] for side in SIDES}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "pairs.json"
        file.write_text(json.dumps(encode(config, arguments.limit)), encoding="utf-8")
        for _ in range(arguments.repeats):
            for side in SIDES:
                command = [sys.executable, *sys.argv, "--side", side, "--pairs", str(file)]
                done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
                rows[side].append(json.loads(done.stdout.strip().splitlines()[-1]))
    show(rows)
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


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
    from pipeline.data.schema import Preference
    from pipeline.rundir import StageDir
    from pipeline.stages.inputs import EncodedPair, load_backbone
    from pipeline.stages.reward import accuracy, train

    row = Preference(prompt=(), chosen="", rejected="", margin=0.0, meta={}, where="")
    rows, test = ([EncodedPair(*pair, 0, 0.0, row) for pair in pairs[name]] for name in ("train", "test"))
    backbone = load_backbone(config)
    backbone.adapters.add("sft")  # changes nothing: like TRL's, the reward model starts from the base
    with tempfile.TemporaryDirectory() as folder:
        out = StageDir(Path(folder) / "reward", "reward", "")
        start = time.perf_counter()
        # One pair to validate on: choosing an epoch is not part of what is compared.
        model, _ = train(backbone, "reward", rows, test[:1], config, out)
        seconds = time.perf_counter() - start
    return accuracy(model, test, config.reward.microbatch_size) | speed(config, pairs, seconds)


def trl(config: Config, pairs: dict[str, list[Any]]) -> dict[str, Any]:
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForSequenceClassification, AutoTokenizer
    from trl import RewardConfig, RewardTrainer

    from pipeline.evaluation.statistics import wilson
    from pipeline.lm.options import adapted_layers, linear_names
    from pipeline.lm.sources import resolve

    cfg, lora = config.reward, config.lora
    folder = resolve(config.model.name, sha256=config.model.sha256, cache_dir=config.model.cache_dir)
    model = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=1, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model.config.pad_token_id = tokenizer.pad_token_id
    layers = adapted_layers(lora.layers, model.config.num_hidden_layers)
    rows = Dataset.from_list([{"chosen_ids": chosen, "rejected_ids": rejected} for chosen, rejected in pairs["train"]])
    with tempfile.TemporaryDirectory() as output:
        options = RewardConfig(
            output_dir=output,
            learning_rate=cfg.learning_rate,
            num_train_epochs=cfg.epochs,
            per_device_train_batch_size=cfg.microbatch_size,
            gradient_accumulation_steps=max(1, cfg.batch_size // cfg.microbatch_size),
            max_length=None,
            center_rewards_coefficient=cfg.centering or None,
            lr_scheduler_type="linear",
            warmup_steps=cfg.warmup_fraction,
            weight_decay=cfg.weight_decay,
            max_grad_norm=cfg.max_grad_norm,
            gradient_checkpointing=False,
            bf16=False,
            use_cpu=config.model.device == "cpu" or not torch.cuda.is_available(),
            seed=config.seed,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            logging_strategy="no",
        )
        adapter = LoraConfig(
            r=lora.r,
            lora_alpha=lora.alpha,
            target_modules=lora.targets if layers is None else linear_names(model.base_model, lora.targets),
            layers_to_transform=layers,
            task_type="SEQ_CLS",
        )
        trainer = RewardTrainer(model, options, train_dataset=rows, processing_class=tokenizer, peft_config=adapter)
        start = time.perf_counter()
        trainer.train()
        seconds = time.perf_counter() - start
    trained = trainer.model.eval()

    @torch.no_grad()
    def score(ids: list[int]) -> float:
        return trained(input_ids=torch.tensor([ids], device=trained.device)).logits.item()  # type: ignore[no-any-return]

    right = sum(score(chosen) > score(rejected) for chosen, rejected in pairs["test"])
    low, high = wilson(right, len(pairs["test"]))
    figures = {"accuracy": right / len(pairs["test"]), "accuracy_low": low, "accuracy_high": high}
    return figures | speed(config, pairs, seconds)


def show(rows: dict[str, list[dict[str, Any]]]) -> None:
    table = Table("", "accuracy", "95 %", "tokens/s", "seconds", "peak RSS, MB")
    middle = {
        side: {
            key: statistics.median(run[key] for run in runs) for key in ("tokens_per_second", "seconds", "peak_rss_mb")
        }
        for side, runs in rows.items()
    }
    for side, runs in rows.items():
        first = runs[0]
        table.add_row(
            side,
            f"{first['accuracy']:.3f}",
            f"[{first['accuracy_low']:.3f}, {first['accuracy_high']:.3f}]",
            f"{middle[side]['tokens_per_second']:.0f}",
            f"{middle[side]['seconds']:.0f}",
            f"{middle[side]['peak_rss_mb']:.0f}",
        )
    console = Console()
    console.print(table)
    ours_, trl_ = middle["ours"], middle["trl"]
    console.print(
        f"ours / trl: {ours_['tokens_per_second'] / trl_['tokens_per_second']:.2f}× tokens/s, "
        f"{ours_['peak_rss_mb'] / trl_['peak_rss_mb']:.2f}× peak memory"
    )


if __name__ == "__main__":
    main()
