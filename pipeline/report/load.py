"""A run folder as plain data: what each stage left, finished or not."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from pipeline.rundir import ALL_STAGES, STAGES, RunDir, RunError, StageResult, read_jsonl

Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Stage:
    """What one stage left. A stage without a result may have figures all the same: it runs still, or it stopped."""

    name: str
    result: StageResult | None = None
    rows: Rows = field(default_factory=list)
    samples: Rows = field(default_factory=list)

    @property
    def metrics(self) -> dict[str, Any]:
        """The final figures; none while the stage isn't done."""
        return self.result.metrics if self.result else {}

    def series(self, key: str) -> list[tuple[float, float]]:
        """(step, value) of every row that has this figure."""
        return [(row.get("step", i), row[key]) for i, row in enumerate(self.rows) if _is_number(row.get(key))]


@dataclass(frozen=True)
class Run:
    """A run, as far as it got."""

    name: str
    config: dict[str, Any]
    stages: dict[str, Stage]

    def __getitem__(self, stage: str) -> Stage:
        return self.stages.get(stage, Stage(stage))  # one that the config leaves out has left nothing

    @property
    def skipped_gates(self) -> list[str]:
        """Gates that the config passes over."""
        return (self.config.get("gates") or {}).get("skip") or []

    @property
    def finished(self) -> list[Stage]:
        """Stages with a result, in order."""
        return [stage for stage in self.stages.values() if stage.result]

    @property
    def unfinished(self) -> list[Stage]:
        """Stages without a result, in order."""
        return [stage for stage in self.stages.values() if not stage.result]


def load(path: Path) -> Run:
    """Read a run folder.

    Raises:
        RunError: no such folder, no finished stage, or a file that can't be read; the message names it.
    """
    if not path.is_dir():
        raise RunError(f"there is no run folder {path}; `align run CONFIG` makes one")
    config = _config(path / "config.yaml")
    there = [name for name in ALL_STAGES if config.get(name, {} if name in STAGES else None) is not None]
    run = Run(path.resolve().name, config, {name: _stage(path, name) for name in there})
    if not run.finished:
        raise RunError(f"{path} has no finished stage yet, so there is nothing to report; run `align run CONFIG`")
    return run


def _stage(path: Path, name: str) -> Stage:
    result = RunDir(path).result(name)
    if result is not None and not all(isinstance(part, dict) for part in (result.metrics, result.data)):
        raise RunError(f"{path / name / 'result.json'} is damaged; delete it (or use --force) to repeat the stage")
    rows, samples = (
        _rows(path / name / file, finished=result is not None) for file in ("metrics.jsonl", "samples.jsonl")
    )
    return Stage(name, result, rows, samples)


def _rows(path: Path, *, finished: bool) -> Rows:
    """Rows of a file. While a stage is running, the line it is writing just now doesn't count."""
    try:
        if not finished and path.is_file():
            text = path.read_text(encoding="utf-8")
            rows = [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines() if line.strip()]
        else:
            rows = read_jsonl(path)
    except (ValueError, OSError) as error:
        raise RunError(f"{path} can't be read ({error}); repeat the stage with --force") from None
    if not all(isinstance(row, dict) for row in rows):
        raise RunError(f"{path} is damaged: every line must be a JSON object; repeat the stage with --force")
    return rows


def _config(path: Path) -> dict[str, Any]:
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RunError(
            f"{path.parent} has no config.yaml, so it is no run folder; `align run CONFIG` makes one"
        ) from None
    except (OSError, ValueError, yaml.YAMLError):
        raise RunError(f"{path} can't be read; repeat `align run CONFIG`, which writes it again") from None
    if not isinstance(config, dict):
        raise RunError(f"{path} holds no settings; repeat `align run CONFIG`, which writes it again")
    return config


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
