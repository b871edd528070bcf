"""What a stage starts from: rows as the config names them, encoded for the model, bad rows counted; the base."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pipeline.config import Config, DataConfig, RewardConfig, load_config
from pipeline.data.files import file_sha256
from pipeline.data.loaders import load
from pipeline.data.rows import BadRows, DataError
from pipeline.data.schema import Demonstration, Kind, Preference, Prompt
from pipeline.data.splits import split_by_prompt
from pipeline.lm.backbone import Backbone
from pipeline.lm.chat import ChatFormat, Encoded
from pipeline.rundir import RunDir, RunError

TRUNCATED_AWAY = "nothing supervised after truncation"
EQUAL_ONCE_CUT = "chosen equals rejected after truncation"
TOO_LONG = "prompt too long"
# Fixed, for the parts of several sections must fit together in every run; and no run's seed, for a stage that splits
# its part again by the same hash would find all of it on one side.
PART_SEED = 2**31 - 1


@dataclass(frozen=True)
class Source:
    """Rows of one data section and the account of them that goes into the result."""

    rows: list[Any]
    bad: BadRows
    info: dict[str, Any]

    def account(self, **extra: Any) -> dict[str, Any]:
        """Source, hash, rows read and kept, rejected rows by reason (truncation included)."""
        rejected = sum(self.bad.counts.values())
        return {**self.info, "rejected": rejected, "reasons": dict(self.bad.counts), **extra}


def read(config: Config, data: DataConfig, kind: Kind) -> Source:
    """Load a data section. `part` keeps the prompts whose hash falls into its share, whatever the file's order.

    Raises:
        DataError: the file can't be read or serve `kind`, a bad row unless they are skipped, or no row is left.
    """
    bad = BadRows(data.on_bad_row)
    loaded = load(
        data.source,
        kind,
        schema=data.format,
        columns=data.columns,
        split=data.split,
        subset=data.subset,
        limit=data.limit,
        system=data.system,
        base_dir=Path(config.data_dir),
        bad_rows=bad,
    )
    rows = loaded.rows
    if data.part is not None:
        low, high = (int(bound) / 100 for bound in data.part.split("-"))
        shares = {"before": low, "part": high - low, "after": 1 - high}
        rows = split_by_prompt(rows, {name: share for name, share in shares.items() if share > 0}, seed=PART_SEED)[
            "part"
        ]
        if not rows:
            raise DataError(f"{data.source}: part {data.part} holds none of {len(loaded.rows)} rows; widen it")
    info = {"source": data.source, "format": loaded.schema, "sha256": loaded.sha256, **loaded.counts}
    return Source(rows, bad, info | {"used": len(rows)})


def demonstrations(config: Config) -> list[str]:
    """Completions of the SFT data: what the manner was meant to sound like."""
    rows = read(config, config.sft.data, "demonstrations").rows
    return [row.completion for row in rows if isinstance(row, Demonstration)]


def source_hash(config: Config, data: DataConfig) -> str:
    """Hash of a data file's bytes, or the hub id, for a stage's fingerprint."""
    for path in (Path(data.source), Path(config.data_dir) / data.source):
        if path.is_file():
            return file_sha256(path)
    return data.source


def open_run(path: Path, overrides: Iterable[str] = ()) -> tuple[Config, RunDir]:
    """The configuration that a run folder holds, with overrides, and the folder.

    Raises:
        RunError: it isn't one.
    """
    file = path / "config.yaml"
    if not file.is_file():
        raise RunError(f"no run at {path}: config.yaml is missing; give the folder of a run")
    return load_config(file, [*overrides, f"run_dir={path}"]), RunDir(path)


def reward_section(config: Config) -> RewardConfig:
    """The section of the reward models. Raises RunError where the run has none."""
    if config.reward is None:
        raise RunError("this run has no reward section, and so neither reward model nor judge")
    return config.reward


def same_base(one: Config, other: Config) -> bool:
    """Whether an adapter of one run's fits on the other's base as it is."""
    base, shape = {"name", "sha256", "chat_template", "quantization", "dtype"}, {"r", "alpha", "targets", "layers"}
    parts = [config.model_dump(include={"model": base, "lora": shape}) for config in (one, other)]
    return parts[0] == parts[1]


def load_backbone(config: Config) -> Backbone:
    """The base as the config describes it; a GPU's peak memory is measured from here on."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    options = config.model.model_dump()
    return Backbone.load(options.pop("name"), lora=config.model_dump()["lora"], **options)


def machine(backbone: Backbone) -> dict[str, Any]:
    """What a stage ran on, for its result: device, dtype, and on a GPU its name and the peak of allocated memory."""
    device, dtype = str(backbone.device), str(backbone.dtype).removeprefix("torch.")
    if backbone.device.type != "cuda":
        return {"device": device, "dtype": dtype}
    name = torch.cuda.get_device_name(backbone.device)
    peak = torch.cuda.max_memory_allocated(backbone.device) / 1e6
    return {"device": f"{device} ({name})", "dtype": dtype, "peak_gpu_mb": round(peak, 1)}


def encode_demonstrations(chat: ChatFormat, source: Source, max_length: int) -> list[Encoded]:
    """Conversations as tokens cut to `max_length`; a row with nothing left to learn is a bad row."""
    encoded = []
    for row in source.rows:
        assert isinstance(row, Demonstration)
        whole = chat.encode(row.messages)
        cut = Encoded(whole.ids[:max_length], whole.supervised[:max_length])
        if not any(cut.supervised):
            detail = f"the answer begins after token {max_length}"
            source.bad.reject(row.where, TRUNCATED_AWAY, f"{detail}; raise max_length")
            continue
        encoded.append(cut)
    return encoded


@dataclass(frozen=True)
class EncodedPair:
    """Chosen and rejected as whole sequences, and where the prompt ends."""

    chosen: list[int]
    rejected: list[int]
    prompt_length: int
    margin: float
    row: Preference


def encode_pairs(chat: ChatFormat, source: Source, max_length: int) -> list[EncodedPair]:
    """Pairs as tokens cut to `max_length`; pairs that the cut makes equal are bad rows."""
    pairs = []
    for row in source.rows:
        assert isinstance(row, Preference)
        prompt = chat.prompt_ids(row.prompt)
        chosen = (prompt + chat.completion_ids(row.prompt, row.chosen))[:max_length]
        rejected = (prompt + chat.completion_ids(row.prompt, row.rejected))[:max_length]
        if chosen == rejected:
            source.bad.reject(
                row.where, EQUAL_ONCE_CUT, f"the answers agree up to token {max_length}; raise max_length"
            )
            continue
        pairs.append(EncodedPair(chosen, rejected, len(prompt), row.margin, row))
    return pairs


def encode_prompts(chat: ChatFormat, source: Source, max_length: int | None = None) -> list[tuple[Prompt, list[int]]]:
    """Prompts as tokens. One that is too long is a bad row: cutting it would break the template.

    Raises:
        DataError: none is left.
    """
    kept = []
    for row in source.rows:
        assert isinstance(row, Prompt)
        ids = chat.prompt_ids(row.messages)
        if max_length is not None and len(ids) > max_length:
            source.bad.reject(row.where, TOO_LONG, f"{len(ids)} tokens; raise max_prompt_length above {max_length}")
            continue
        kept.append((row, ids))
    if not kept:
        raise DataError(
            f"{source.info.get('source', 'prompts')}: no prompt is left, the shortest is above {max_length} tokens"
        )
    return kept
