"""Figures to TensorBoard, Weights & Biases or trackio, through accelerate, by one config key."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from accelerate import Accelerator
from accelerate.utils import ProjectConfiguration

from pipeline import processes
from pipeline.config import Config
from pipeline.rundir import RunDir, StageDir


@contextmanager
def track(config: Config, run_dir: RunDir, out: StageDir) -> Iterator[None]:
    """Send every row that the stage logs to `logging.tracker` while the block runs."""
    if config.logging.tracker == "none" or not processes.main():
        yield
        return
    folder = str(run_dir.path / "tracking")
    accelerator = Accelerator(
        cpu=processes.world() == 1,  # it only reports here; the models keep their own device
        log_with=config.logging.tracker,
        project_config=ProjectConfiguration(project_dir=folder, logging_dir=folder),
    )
    accelerator.init_trackers(run_dir.path.name)

    def send(step: int, row: dict[str, Any]) -> None:
        numbers = {f"{out.stage}/{name}": value for name, value in row.items() if isinstance(value, (int, float))}
        accelerator.log(numbers, step=step)

    out.listen(send)
    try:
        yield
    finally:
        accelerator.end_training()
