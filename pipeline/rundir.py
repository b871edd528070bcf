"""The run folder: resolved config, metrics, samples, and each stage's result, written last and atomically. Of several
processes the first one writes.

runs/NAME/
  config.yaml                     the resolved configuration
  sft/ reward/ policy/ evaluate/  one folder a stage, and dpo/ where it is on:
    metrics.jsonl                 one line a step
    samples.jsonl                 texts to read
    result.json                   written last; its presence means done
    <adapter folders>
    checkpoints/                  while it runs (checkpoints.py)
  report.html
"""

import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pipeline import processes
from pipeline.atomic import write_atomically
from pipeline.machine import environment, peak_rss_mb, reset_peak_rss

STAGES = ("sft", "reward", "policy", "evaluate")  # of every run
ALL_STAGES = ("sft", "reward", "dpo", "policy", "evaluate")  # and those that a config may add, in order
NEEDS = {
    "sft": (),
    "reward": ("sft",),
    "dpo": ("sft",),
    "policy": ("sft", "reward"),
    "evaluate": ("sft", "reward", "dpo", "policy"),
}
LOGS = ("metrics.jsonl", "samples.jsonl")
CHECKPOINTS = "checkpoints"


class RunError(RuntimeError):
    """A run folder that can't be used as asked; the message says what to do."""


@dataclass(frozen=True)
class StageResult:
    """What a stage leaves for the others: figures under dotted names, and folders relative to its own."""

    stage: str
    fingerprint: str
    metrics: dict[str, Any]
    artifacts: dict[str, str] = field(default_factory=dict)
    data: dict[str, dict[str, Any]] = field(default_factory=dict)
    seconds: float = 0.0
    peak_rss_mb: float = 0.0
    peak_gpu_mb: float | None = None  # None where the stage ran without a GPU
    environment: dict[str, str] = field(default_factory=dict)


def fingerprint(*parts: Any) -> str:
    """A hash of everything that decides a stage's outcome: config sections, data hashes, predecessors."""
    text = json.dumps(parts, sort_keys=True, default=str, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class StageDir:
    """One stage's folder. Metrics and samples are appended, the result is written last.

    Args:
        path: the folder.
        stage: its name.
        fingerprint: what decides the outcome.
        resume: keep what an interrupted run left; `rewind` then says how much of it counts. Otherwise the folder is
            emptied.
    """

    def __init__(self, path: Path, stage: str, fingerprint: str, *, resume: bool = False) -> None:
        if processes.main():
            _clear(path, keep=resume)
        self.path, self.stage, self.fingerprint = path, stage, fingerprint
        self.checkpoints = path / CHECKPOINTS
        self._started, self._before = time.perf_counter(), {"seconds": 0.0, "peak_rss_mb": 0.0}
        reset_peak_rss()
        self._listeners: list[Any] = []

    def position(self) -> dict[str, float]:
        """How far the logs, which are flushed to disk, the time and the peak of memory have come."""
        sizes = {}
        for name in LOGS:
            sizes[name] = 0
            if (self.path / name).is_file():
                with open(self.path / name, "rb") as file:
                    os.fsync(file.fileno())
                    sizes[name] = file.seek(0, os.SEEK_END)
        return {**sizes, **self._spent()}

    def check(self, position: Mapping[str, float]) -> None:
        """Raises ValueError where a log is shorter than at `position`."""
        for name in LOGS:
            path = self.path / name
            if (path.stat().st_size if path.is_file() else 0) < position[name]:
                raise ValueError(f"{name} is shorter than it was")

    def rewind(self, position: Mapping[str, float] | None) -> None:
        """Cut the logs to `position` and count on from there; None = nothing counts, the folder is emptied."""
        if not processes.main():
            return
        if position is None:
            shutil.rmtree(self.path)
            self.path.mkdir()
            return
        for name in LOGS:
            if (self.path / name).is_file():
                os.truncate(self.path / name, int(position[name]))
        self._before = {name: position[name] for name in self._before}

    def _spent(self) -> dict[str, float]:
        seconds = self._before["seconds"] + time.perf_counter() - self._started
        return {"seconds": round(seconds, 2), "peak_rss_mb": round(max(self._before["peak_rss_mb"], peak_rss_mb()), 1)}

    def listen(self, listener: Any) -> None:
        """Also send every logged row to `listener(step, row)`, such as an experiment tracker."""
        self._listeners.append(listener)

    def log(self, step: int, figures: Mapping[str, Any]) -> None:
        """Append one row to metrics.jsonl. Raises FloatingPointError on a figure that is NaN or infinite."""
        row = {name: (round(value, 8) if isinstance(value, float) else value) for name, value in figures.items()}
        for name, value in row.items():
            if isinstance(value, float) and value - value != 0:
                raise FloatingPointError(
                    f"{self.stage}: {name} is {value} at step {step}; see {self.path}/metrics.jsonl"
                )
        self._append("metrics.jsonl", {"step": step, **row})
        for listener in self._listeners:
            listener(step, row)

    def sample(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Append rows to samples.jsonl."""
        for row in rows:
            self._append("samples.jsonl", row)

    def _append(self, name: str, row: Mapping[str, Any]) -> None:
        if not processes.main():
            return
        with open(self.path / name, "a", encoding="utf-8") as file:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")

    def finish(
        self,
        metrics: Mapping[str, Any],
        *,
        artifacts: Mapping[str, str] | None = None,
        data: Mapping[str, dict[str, Any]] | None = None,
        device: str = "cpu",
        dtype: str = "float32",
        peak_gpu_mb: float | None = None,
    ) -> StageResult:
        """Write result.json; from now on the stage counts as done."""
        result = StageResult(
            stage=self.stage,
            fingerprint=self.fingerprint,
            metrics=dict(metrics),
            artifacts=dict(artifacts or {}),
            data=dict(data or {}),
            peak_gpu_mb=peak_gpu_mb,
            environment=environment(device, dtype) | {"processes": str(processes.world())},
            **self._spent(),
        )
        if not processes.main():
            return result
        write_atomically(self.path / "result.json", json.dumps(asdict(result), indent=2, ensure_ascii=False) + "\n")
        shutil.rmtree(self.checkpoints, ignore_errors=True)  # nobody goes on from them any more
        return result


def _clear(path: Path, *, keep: bool) -> None:
    """Make a stage's folder, empty, or without the files that a killed process was writing, safetensors' among them."""
    if path.exists() and not keep:
        shutil.rmtree(path)
    path.mkdir(parents=True, exist_ok=True)
    for half in path.rglob(".*tmp*"):
        if half.is_file():
            half.unlink()


class RunDir:
    """The folder of a whole run."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def create(self, config_text: str) -> None:
        """Make the folder and store the resolved config. Raises RunError when the folder can't be written."""
        if not processes.main():
            return
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            write_atomically(self.path / "config.yaml", config_text)
        except OSError as error:
            raise RunError(f"run folder {self.path} can't be written: {error.strerror}; set run_dir=PATH") from None

    def result(self, stage: str) -> StageResult | None:
        """The stage's result, or None while it isn't done."""
        path = self.path / stage / "result.json"
        if not path.is_file():
            return None
        try:
            return StageResult(**json.loads(path.read_text(encoding="utf-8")))
        except (ValueError, TypeError):
            raise RunError(f"{path} is damaged; delete it (or use --force) to repeat the stage") from None

    def require(self, stage: str) -> StageResult:
        """The result of a predecessor. Raises RunError when it isn't there."""
        result = self.result(stage)
        if result is None:
            raise RunError(f"{self.path} has no finished {stage} stage; run `align {stage} CONFIG` first")
        return result

    def tidy(self, stage: str) -> None:
        """Remove the checkpoints of a finished stage that was killed while it removed them."""
        shutil.rmtree(self.path / stage / CHECKPOINTS, ignore_errors=True)

    def artifact(self, stage: str, name: str) -> Path:
        """Path of a predecessor's artifact."""
        result = self.require(stage)
        if name not in result.artifacts:
            raise RunError(f"{stage} left no {name!r}; it has {', '.join(result.artifacts) or 'nothing'}")
        path = self.path / stage / result.artifacts[name]
        if not path.resolve().is_relative_to((self.path / stage).resolve()):
            raise RunError(
                f"{stage}'s {name!r} lies outside of its folder ({result.artifacts[name]}); repeat the stage"
            )
        return path

    def open_stage(self, stage: str, fingerprint: str, *, resume: bool = False) -> StageDir:
        """The folder of a stage about to run, empty unless an interrupted one may go on; results of the stage and of
        those that are built on it are withdrawn."""
        self.withdraw(stage)
        try:
            return StageDir(self.path / stage, stage, fingerprint, resume=resume)
        except OSError as error:
            raise RunError(f"{self.path / stage} can't be written: {error.strerror}; set run_dir=PATH") from None

    def withdraw(self, stage: str) -> None:
        """Remove the results of a stage and of those that are built on it."""
        for name in (stage, *(later for later in ALL_STAGES if stage in NEEDS[later])) if processes.main() else ():
            (self.path / name / "result.json").unlink(missing_ok=True)


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """Rows of a JSON-lines file; none when there is no such file."""
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]


def summary(run: RunDir) -> dict[str, Any]:
    """All figures of a run under dotted keys: `<stage>.<metric>`, durations and memory."""
    flat: dict[str, Any] = {}
    total = 0.0
    for stage in ALL_STAGES:
        result = run.result(stage)
        if result is None:
            continue
        flat |= {f"{stage}.{name}": value for name, value in result.metrics.items()}
        flat |= {f"{stage}.seconds": result.seconds, f"{stage}.peak_rss_mb": result.peak_rss_mb}
        if result.peak_gpu_mb is not None:
            flat[f"{stage}.peak_gpu_mb"] = result.peak_gpu_mb
        total += result.seconds
    flat["total_seconds"] = round(total, 2)
    return flat
