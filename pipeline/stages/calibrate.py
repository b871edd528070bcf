"""`align judge`: how one of a run's judges does on labelled pairs from any file."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pipeline.config import Config, ConfigError
from pipeline.data.loaders import load
from pipeline.data.schema import Preference
from pipeline.evaluation.judge_calibration import Pair, calibrate
from pipeline.evaluation.judges.protocol import Answer, ByScore, Judge
from pipeline.evaluation.judging import Figures
from pipeline.lm.backbone import Backbone
from pipeline.lm.chat import ChatFormat
from pipeline.progress import bar
from pipeline.rundir import RunDir
from pipeline.stages.inputs import load_backbone, open_run
from pipeline.stages.judges import build_judge, headline_judge, own_judge
from pipeline.stages.reward import trained_prompts


@dataclass(frozen=True)
class Calibration:
    """What `align judge` found.

    Attributes:
        judge, kind: who was asked; the run's own models are of kind reward_model.
        source: where the pairs come from.
        figures: see `evaluation.judge_calibration.calibrate`.
        trained_on: pairs whose prompt the judge was trained on, which flatter it; None = nobody knows.
    """

    judge: str
    kind: str
    source: str
    figures: Figures
    trained_on: int | None


def calibrate_judge(
    run_path: Path,
    source: str,
    name: str | None = None,
    *,
    schema: str = "auto",
    limit: int | None = None,
    skip_bad_rows: bool = False,
    overrides: Sequence[str] = (),
) -> Calibration:
    """Ask a run's judge (None = its held-out one) about the pairs of a file or a hub data set.

    Raises:
        RunError: no run there, or its reward stage isn't finished.
        ConfigError: the run has no such judge.
        DataError: the file can't be read as pairs.
    """
    config, run_dir = open_run(run_path, overrides)
    own = list(run_dir.require("reward").artifacts)
    name = name or headline_judge(run_dir)
    if name not in own and name not in config.evaluate.judges:
        raise ConfigError(f"--judge {name!r}: this run has {', '.join([*own, *config.evaluate.judges])}")
    loaded = load(
        source,
        "preferences",
        schema=schema,
        limit=limit,
        on_bad_row="skip" if skip_bad_rows else "error",
        base_dir=Path(config.data_dir),
    )
    backbone = load_backbone(config)
    judge, kind = _judge(config, name, run_dir, backbone)
    figures = calibrate(
        judge,
        [as_answers(backbone.chat, row) for row in loaded.rows],
        [row.key for row in loaded.rows],
    )
    return Calibration(name, kind, source, figures, _trained_on(config, name, kind, loaded.rows))


def _judge(config: Config, name: str, run_dir: RunDir, backbone: Backbone) -> tuple[Judge, str]:
    if name in config.evaluate.judges:
        return build_judge(config, name, run_dir, backbone), config.evaluate.judges[name].kind
    size = config.evaluate.batch_size // 2 or 1
    progress = partial(bar, visible=config.logging.progress)
    return ByScore(own_judge(run_dir, backbone, name, batch_size=size, progress=progress)), "reward_model"


def as_answers(chat: ChatFormat, row: Preference) -> Pair:
    """Chosen and rejected as answers that ended by themselves."""
    prompt = chat.prompt_ids(row.prompt)
    chosen, rejected = (
        Answer(row.prompt, text, prompt, chat.completion_ids(row.prompt, text), True)
        for text in (row.chosen, row.rejected)
    )
    return chosen, rejected


def _trained_on(config: Config, name: str, kind: str, rows: Sequence[Preference]) -> int | None:
    """Rows whose prompt a reward model of this run has seen with its label."""
    if name in config.evaluate.judges and kind != "ensemble":
        return None
    seen = trained_prompts(config, name)
    return None if seen is None else sum(row.key in seen for row in rows)
