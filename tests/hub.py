"""Folders as the hub has them: the recipes' data sets in their published layout, and their models, tiny.

Every row was written for these tests. What is published is the layout alone: names of files, splits and columns, types.
"""

import gzip
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import datasets
import torch
from tokenizers import AddedToken
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from pipeline.lm.sources import resolve

ROWS = 120  # a split; parts of four per cent must hold a few
THINGS = ("a kettle", "the sea", "an old map", "rain", "two cats", "a late train", "bread", "my desk")
DOINGS = ("mend", "draw", "sell", "find", "clean")
Turns = list[dict[str, str]]


def _question(number: int) -> str:
    return f"How do I {DOINGS[number % 5]} {THINGS[number % 8]}, try {number}?"


def _answers(number: int) -> tuple[str, str]:
    """A good one and a bad one."""
    return f"Slowly, in {2 + number % 3} steps.", f"No idea{'.' * (number % 3)}"


# ---- data sets ----------------------------------------------------------------------------------------------


def write_hh(folder: Path) -> None:
    """Anthropic/hh-rlhf: a folder a tranche with train.jsonl.gz and test.jsonl.gz; the red team's has other columns."""

    def pairs(start: int, count: int) -> Iterator[dict[str, Any]]:
        for number in range(start, start + count):
            earlier = "\n\nHuman: Hello\n\nAssistant: Hi, what is it?" if number % 4 == 0 else ""
            prompt = f"{earlier}\n\nHuman: {_question(number)}\n\nAssistant: "
            chosen, rejected = _answers(number)
            yield {"chosen": prompt + chosen, "rejected": prompt + rejected}

    for place, tranche in enumerate(("harmless-base", "helpful-base")):
        _write_lines(folder / tranche / "train.jsonl.gz", pairs(1000 * place, ROWS // 2))
        _write_lines(folder / tranche / "test.jsonl.gz", pairs(1000 * place + 500, ROWS // 2))
    _write_lines(folder / "red-team-attempts" / "red_team_attempts.jsonl.gz", iter([{"transcript": "Hi", "rating": 1}]))


def write_ultrafeedback(folder: Path) -> None:
    """HuggingFaceH4/ultrafeedback_binarized: Parquet, splits of their own names, told by the card."""

    def rows(start: int) -> list[dict[str, Any]]:
        found = []
        for number in range(start, start + ROWS):
            chosen, rejected = (_talk(_question(number), answer) for answer in _answers(number))
            row = {"prompt": _question(number), "prompt_id": f"{number:064x}", "chosen": chosen, "rejected": rejected}
            found.append(row | {"messages": chosen, "score_chosen": 8.5, "score_rejected": 1.0 + number % 5})
        return found

    splits = {"train_prefs": 0, "train_sft": 0, "test_prefs": 5000, "test_sft": 5000}
    for split, start in splits.items():
        _write_parquet(folder / "data" / f"{split}-00000-of-00001.parquet", rows(start))
    files = "".join(f"  - split: {split}\n    path: data/{split}-*\n" for split in splits)
    card = f"---\nconfigs:\n- config_name: default\n  data_files:\n{files}---\n"
    (folder / "README.md").write_text(card, encoding="utf-8")


def write_tldr(folder: Path) -> None:
    """trl-lib/tldr: prompt and completion, which begins with a space."""
    for split, start in (("train", 0), ("validation", 2000), ("test", 4000)):
        rows = [{"prompt": _post(n), "completion": f" {_answers(n)[0]}"} for n in range(start, start + ROWS)]
        _write_parquet(folder / "data" / f"{split}-00000-of-00001.parquet", rows)


def write_tldr_preference(folder: Path) -> None:
    """trl-lib/tldr-preference: the same posts with two summaries."""
    for split, start in (("train", 0), ("validation", 2000)):
        rows = []
        for number in range(start, start + ROWS):
            chosen, rejected = (f" {answer}" for answer in _answers(number))
            rows.append({"prompt": _post(number), "chosen": chosen, "rejected": rejected})
        _write_parquet(folder / "data" / f"{split}-00000-of-00001.parquet", rows)


DATASETS: dict[str, Callable[[Path], None]] = {
    "Anthropic/hh-rlhf": write_hh,
    "HuggingFaceH4/ultrafeedback_binarized": write_ultrafeedback,
    "trl-lib/tldr": write_tldr,
    "trl-lib/tldr-preference": write_tldr_preference,
}


def _talk(question: str, answer: str) -> Turns:
    return [{"content": question, "role": "user"}, {"content": answer, "role": "assistant"}]


def _post(number: int) -> str:
    return f"SUBREDDIT: r/advice\n\nTITLE: Help\n\nPOST: {_question(number)} I have all day.\n\nTL;DR:"


def _write_lines(path: Path, rows: Iterator[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with gzip.open(path, "wt", encoding="utf-8") as handle:
        handle.writelines(json.dumps(row) + "\n" for row in rows)


def _write_parquet(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    datasets.Dataset.from_list(rows).to_parquet(path)


# ---- models -------------------------------------------------------------------------------------------------

SHRUNK = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4, "head_dim": 16}
LLAMA3 = [
    "<|begin_of_text|>",
    "<|end_of_text|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eom_id|>",
    "<|eot_id|>",
]
# Special tokens as the families' instruction-tuned models have them; what a model's own config calls an end besides.
SPECIAL: dict[str, tuple[dict[str, str | None], list[str]]] = {
    "HuggingFaceTB": ({"bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "pad_token": "<|im_end|>"}, []),
    "Qwen": ({"bos_token": None, "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}, ["<|endoftext|>"]),
    "meta-llama": (
        {"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>", "pad_token": None},
        ["<|end_of_text|>", "<|eom_id|>"],
    ),
}


def write_model(folder: Path, name: str, published: dict[str, Any], cache: Path) -> None:
    """A model of the published architecture with random weights, two layers and a byte-level vocabulary."""
    tokenizer = AutoTokenizer.from_pretrained(resolve("tiny", cache_dir=cache))
    tokens, ends = SPECIAL[name.partition("/")[0]]
    tokenizer.add_tokens([AddedToken(token, special=True) for token in [*LLAMA3, "<|endoftext|>"]], special_tokens=True)
    for kind, token in tokens.items():
        setattr(tokenizer, kind, token)
    stops = [tokenizer.convert_tokens_to_ids(token) for token in [tokens["eos_token"], *ends]]
    sizes = published | SHRUNK | {"vocab_size": len(tokenizer), "num_key_value_heads": _keys(published)}
    config = AutoConfig.for_model(
        **sizes, bos_token_id=tokenizer.bos_token_id, eos_token_id=stops[0], pad_token_id=tokenizer.pad_token_id
    )
    torch.manual_seed(0)
    model: Any = AutoModelForCausalLM.from_config(config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    GenerationConfig(eos_token_id=stops, pad_token_id=tokenizer.pad_token_id).save_pretrained(folder)


def _keys(published: dict[str, Any]) -> int:
    """As many key heads as query heads where the real one has as many, half of them elsewhere."""
    return 4 if published["num_key_value_heads"] == published["num_attention_heads"] else 2
