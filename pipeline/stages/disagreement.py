"""How much a run's reward models disagree on pairs of answers: where a label would tell them most."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from pipeline.data.schema import Message
from pipeline.evaluation.agreement import Array, disagreement
from pipeline.evaluation.judges.protocol import Answer
from pipeline.progress import bar
from pipeline.rundir import RunError
from pipeline.stages.inputs import load_backbone, open_run
from pipeline.stages.judges import own_judge
from pipeline.stages.reward_card import score_scale

Compared = tuple[Sequence[Message], str, str]  # a conversation and two answers


def disagreements(run_path: Path, pairs: Sequence[Compared]) -> Array:
    """`disagreement` of all reward models that the run trained, `reward`, `judge`, `judge_2`, …, on each pair, [n].

    Raises:
        RunError: its reward stage isn't finished, or it trained one reward model only.
    """
    config, run_dir = open_run(run_path)
    names = list(run_dir.require("reward").artifacts)
    if len(names) < 2:
        raise RunError(
            f"{run_path} trained one reward model, which has nobody to disagree with; set reward.judge above 0, or "
            "reward.judges to 2 or more"
        )
    backbone = load_backbone(config)
    answers = []
    for prompt, *texts in pairs:
        ids = backbone.chat.prompt_ids(prompt)
        answers += [
            Answer(tuple(prompt), text, ids, backbone.chat.completion_ids(prompt, text), True) for text in texts
        ]
    options = {"batch_size": config.evaluate.batch_size // 2 or 1}
    progress = partial(bar, visible=config.logging.progress)
    differences = []
    for name in names:
        scores = np.array(own_judge(run_dir, backbone, name, **options, progress=progress).score(answers))
        differences.append((scores[::2] - scores[1::2]) * score_scale(run_dir, name))
    return disagreement(np.array(differences))
