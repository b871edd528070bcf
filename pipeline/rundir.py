"""The run folder: resolved config, metrics, samples, and each stage's result, written last and atomically.

runs/NAME/
  config.yaml                     the resolved configuration
  sft/ reward/ policy/ evaluate/  one folder a stage:
    metrics.jsonl                 one line a step
    samples.jsonl                 texts to read
    result.json                   written last; its presence means done
    <adapter folders>
  report.html
"""

import contextlib
import hashlib
import json
import os
import platform
import resource
import shutil
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

STAGES = ("sft", "reward", "policy", "evaluate")


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


def write_atomically(path: Path, text: str) -> None:
    """Write beside `path`, flush to disk, then rename: readers see the old file or the whole new one."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with open(temporary, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def fingerprint(*parts: Any) -> str:
    """A hash of everything that decides a stage's outcome: config sections, data hashes, predecessors."""
    text = json.dumps(parts, sort_keys=True, default=str, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def reset_peak_rss() -> None:
    """Start a new measurement of peak memory, where the system can (Linux); elsewhere the peak is the process's."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_rss_mb() -> float:
    """Peak resident memory in MB (10⁶ bytes) since `reset_peak_rss`."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024 / 1e6
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6


def environment(device: str, dtype: str) -> dict[str, str]:
    """Versions and machine, for the report. No host name, no path."""
    packages = ("torch", "transformers", "peft", "trl", "datasets", "accelerate")
    versions = {name: metadata.version(name) for name in packages}
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cpu_cores": str(os.cpu_count()),
        "device": device,
        "dtype": dtype,
        **versions,
    }


class StageDir:
    """One stage's folder. Opened empty; metrics and samples are appended, the result is written last."""

    def __init__(self, path: Path, stage: str, fingerprint: str) -> None:
        if path.exists():
            shutil.rmtree(path)
        path.mkdir(parents=True)
        self.path, self.stage, self.fingerprint = path, stage, fingerprint
        self._started = time.perf_counter()
        reset_peak_rss()
        self._listeners: list[Any] = []

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
            seconds=round(time.perf_counter() - self._started, 2),
            peak_rss_mb=round(peak_rss_mb(), 1),
            peak_gpu_mb=peak_gpu_mb,
            environment=environment(device, dtype),
        )
        write_atomically(self.path / "result.json", json.dumps(asdict(result), indent=2, ensure_ascii=False) + "\n")
        return result


class RunDir:
    """The folder of a whole run."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def create(self, config_text: str) -> None:
        """Make the folder and store the resolved config. Raises RunError when the folder can't be written."""
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

    def artifact(self, stage: str, name: str) -> Path:
        """Path of a predecessor's artifact."""
        result = self.require(stage)
        if name not in result.artifacts:
            raise RunError(f"{stage} left no {name!r}; it has {', '.join(result.artifacts) or 'nothing'}")
        return self.path / stage / result.artifacts[name]

    def open_stage(self, stage: str, fingerprint: str) -> StageDir:
        """An empty folder for a stage about to run; results of the stage and of those after it are withdrawn."""
        for later in STAGES[STAGES.index(stage) :] if stage in STAGES else ():
            (self.path / later / "result.json").unlink(missing_ok=True)
        try:
            return StageDir(self.path / stage, stage, fingerprint)
        except OSError as error:
            raise RunError(f"{self.path / stage} can't be written: {error.strerror}; set run_dir=PATH") from None


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """Rows of a JSON-lines file; none when there is no such file."""
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]


def summary(run: RunDir) -> dict[str, Any]:
    """All figures of a run under dotted keys: `<stage>.<metric>`, durations and memory."""
    flat: dict[str, Any] = {}
    total = 0.0
    for stage in STAGES:
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
