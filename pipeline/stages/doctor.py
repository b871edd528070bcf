"""`align data`: read what the stages will read, and say what is in it and what may be wrong with it."""

import json
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.atomic import write_atomically
from pipeline.config import Config, DataConfig
from pipeline.data.doctor import Labels, Leak, compare_prompts, equal_rows, labels
from pipeline.data.schema import Demonstration, Kind, Preference, Row
from pipeline.evaluation.statistics import wilson
from pipeline.lm.chat import ChatFormat, Encoded
from pipeline.lm.options import load_chat
from pipeline.lm.sources import resolve
from pipeline.progress import bar
from pipeline.stages.inputs import Source, read

KINDS: dict[str, Kind] = {
    "sft": "demonstrations",
    "reward": "preferences",
    "policy": "prompts",
    "evaluate": "prompts",
}
BINS = 16  # of a histogram
AT_ONCE = 2000  # texts that are tokenised together


@dataclass(frozen=True)
class Examined:
    """One section's data.

    Attributes:
        name: the section.
        source: its rows, and those turned away.
        lengths: tokens of each row by part: prompt, answer, chosen, rejected.
        limit: the longest prompt, or sequence, that the stage takes.
        cut: rows that are longer.
        equal, near: places of rows that say the same, and of prompts that are nearly the same.
        labels: of pairs only.
    """

    name: str
    source: Source
    lengths: dict[str, np.ndarray]
    limit: int | None
    cut: int
    equal: list[tuple[str, str]]
    near: list[tuple[str, str]]
    labels: Labels | None

    def figures(self) -> dict[str, Any]:
        """What `--json` prints of it."""
        told = {**self.source.account(), "too_long": self.cut, "equal_rows": len(self.equal)}
        told["near_duplicate_prompts"] = len(self.near)
        for part, tokens in self.lengths.items():
            told[f"{part}_tokens"] = dict(zip(("min", "median", "p95", "max"), quantiles(tokens), strict=True))
        if self.labels is not None:
            told |= longer_wins(self.labels)
            told["repeated_pairs"] = len(self.labels.repeated)
            told["contradicting_pairs"] = len(self.labels.contradicting)
        return told


@dataclass(frozen=True)
class Diagnosis:
    """All sections, what they share, and where the rows went that nobody could use."""

    sections: list[Examined]
    leaks: list[Leak]
    quarantine: Path | None
    preview: tuple[ChatFormat, Encoded] | None

    def figures(self) -> dict[str, Any]:
        """What `--json` prints."""
        leaks = dict(Counter(f"{leak.first} and {leak.second}" for leak in self.leaks))
        sections = {section.name: section.figures() for section in self.sections}
        return {**sections, "leaks": leaks, "quarantine": str(self.quarantine) if self.quarantine else None}


def examine(config: Config) -> Diagnosis:
    """Read every section's data, bad rows skipped whatever the config says, and look at it from all sides.

    Raises:
        DataError: a source is missing, can't serve its stage, or has no usable row.
    """
    chat = chat_of(config)
    visible = config.logging.progress
    measured = {name: measure(config, chat, name, visible) for name in sections_of(config)}
    rows = {name: source.rows for name, (source, _) in measured.items()}
    with bar("compare", len({row.key for one in rows.values() for row in one}), visible=visible) as progress:
        near, leaks = compare_prompts(rows, progress.advance)
    sections = [section(config, name, *found, near[name]) for name, found in measured.items()]
    return Diagnosis(sections, leaks, quarantine(config, sections), preview(chat, sections[0].source.rows))


def sections_of(config: Config) -> list[str]:
    """The sections that read data."""
    return [name for name in KINDS if getattr(config, name) is not None]


def chat_of(config: Config) -> ChatFormat:
    """The model's tokenizer and template, without its weights; it may use every core, for nothing forks here."""
    os.environ["TOKENIZERS_PARALLELISM"] = "true"
    model = config.model
    folder = resolve(model.name, sha256=model.sha256, cache_dir=model.cache_dir)
    return load_chat(folder, template=model.chat_template, trust_remote_code=model.trust_remote_code)


def section(
    config: Config, name: str, source: Source, lengths: dict[str, np.ndarray], near: list[tuple[str, str]]
) -> Examined:
    """All that is to be said of one section's data."""
    stage = getattr(config, name)
    limit = getattr(stage, "max_length", getattr(stage, "max_prompt_length", None))
    cut = 0 if limit is None else int((whole(lengths) > limit).sum())
    found = None
    if "chosen" in lengths:
        pairs = zip(lengths["chosen"].tolist(), lengths["rejected"].tolist(), strict=True)
        found = labels(source.rows, list(pairs))
    return Examined(name, source, lengths, limit, cut, equal_rows(source.rows), near, found)


def measure(config: Config, chat: ChatFormat, name: str, visible: bool) -> tuple[Source, dict[str, np.ndarray]]:
    """A section's rows, bad ones skipped, and the tokens of each by part."""
    data: DataConfig = getattr(config, name).data.model_copy(update={"on_bad_row": "skip"})
    source = read(config, data, KINDS[name])
    lengths: dict[str, list[int]] = {}
    with bar(name, len(source.rows), visible=visible) as progress:
        for start in range(0, len(source.rows), AT_ONCE):
            part = source.rows[start : start + AT_ONCE]
            for key, tokens in token_lengths(chat, part).items():
                lengths.setdefault(key, []).extend(tokens)
            progress.advance(len(part))
    return source, {key: np.array(tokens) for key, tokens in lengths.items()}


def whole(lengths: dict[str, np.ndarray]) -> np.ndarray:
    """Tokens of each row's prompt with its longest answer."""
    answers = [tokens for key, tokens in lengths.items() if key != "prompt"]
    return lengths["prompt"] + (np.maximum.reduce(answers) if answers else 0)  # type: ignore[no-any-return]


def lengths_of(config: Config) -> dict[str, dict[str, np.ndarray]]:
    """Tokens of each section's rows, by part: prompt, and answer or chosen and rejected."""
    chat = chat_of(config)
    return {name: measure(config, chat, name, config.logging.progress)[1] for name in sections_of(config)}


def token_lengths(chat: ChatFormat, rows: Sequence[Row]) -> dict[str, list[int]]:
    """Tokens of each row's prompt, as the template renders it, and of its answers, end of turn included."""
    texts: dict[str, list[str]] = {"prompt": [chat.render(row.prompt, add_generation_prompt=True) for row in rows]}
    if isinstance(rows[0], Demonstration):
        texts["answer"] = [row.completion for row in rows if isinstance(row, Demonstration)]
    elif isinstance(rows[0], Preference):
        texts["chosen"] = [row.chosen for row in rows if isinstance(row, Preference)]
        texts["rejected"] = [row.rejected for row in rows if isinstance(row, Preference)]
    encoded = {key: chat.tokenizer(part, add_special_tokens=False)["input_ids"] for key, part in texts.items()}
    return {key: [len(ids) + (key != "prompt") for ids in part] for key, part in encoded.items()}


def preview(chat: ChatFormat, rows: Sequence[Row]) -> tuple[ChatFormat, Encoded] | None:
    """The first demonstration as tokens."""
    first = rows[0]
    return (chat, chat.encode(first.messages)) if isinstance(first, Demonstration) else None


def quarantine(config: Config, sections: Sequence[Examined]) -> Path | None:
    """Write the rows that were turned away, with place and reason; None when there are none."""
    rows = [
        {"section": one.name, "where": where, "reason": reason, "detail": detail}
        for one in sections
        for where, reason, detail in one.source.bad.rejected
    ]
    if not rows:
        return None
    assert config.run_dir is not None
    path = Path(config.run_dir) / "quarantine.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return path


def quantiles(tokens: np.ndarray) -> list[int]:
    """Smallest, median, 95th percentile, largest."""
    return [int(value) for value in np.quantile(tokens, (0, 0.5, 0.95, 1), method="inverted_cdf")]


def longer_wins(found: Labels) -> dict[str, float]:
    """How often the longer answer is the chosen one, of the pairs that differ in length; Wilson's 95 % interval."""
    decided = found.pairs - found.equally_long
    low, high = wilson(found.longer_wins, decided) if decided else (0.0, 1.0)
    share = found.longer_wins / decided if decided else 0.5
    return {"longer_wins": share, "longer_wins_low": low, "longer_wins_high": high}
