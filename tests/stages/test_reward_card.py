"""Everybody's view of the same pairs, whatever the batches."""

from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.data.schema import Preference
from pipeline.lm.policy import mean_logprobs
from pipeline.lm.reward import RewardModel
from pipeline.rundir import RunDir
from pipeline.stages.inputs import EncodedPair, load_backbone
from pipeline.stages.reward_card import score_all, subset_column

from .builders import config


def pair(prompt: str, chosen: str, rejected: str, **meta: str) -> EncodedPair:
    row = Preference(({"role": "user", "content": prompt},), chosen, rejected, 0.0, "here", meta)
    start = [1, *(ord(letter) % 200 + 3 for letter in prompt)]
    ids = {text: start + [ord(letter) % 200 + 3 for letter in text] + [2] for text in (chosen, rejected)}
    return EncodedPair(ids[chosen], ids[rejected], len(start), 0.0, row)


PAIRS = [pair(letter * 3, f"yes {letter}", f"no, not {letter}", subset=letter) for letter in "cabdbe"]


def test_scores_and_logprobs_stand_in_the_order_of_the_pairs(before: RunDir, tmp_path: Path, model: str) -> None:
    """Six pairs in passes of one batch each; the base's log-probabilities are those without any adapter."""
    cfg = config(tmp_path, model)
    cfg = cfg.model_copy(update={"reward": cfg.reward.model_copy(update={"microbatch_size": 1})})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.stages.reward_card.BATCHES", 1)
        backbone = load_backbone(cfg)
        backbone.restore("reward", before.artifact("reward", "reward"))
        scored = score_all(backbone, before, ["reward"], PAIRS, "subset", cfg)["reward"]
    alone = [RewardModel(backbone).score_sequences([one]).item() for one in (p.chosen for p in PAIRS)]
    assert scored.chosen == pytest.approx(np.array(alone), abs=1e-5)
    assert scored.logprobs is not None
    texts, starts = [p.rejected for p in PAIRS], [p.prompt_length for p in PAIRS]
    base, adapted = (mean_logprobs(backbone, name, texts, starts, batch_size=6) for name in (None, "reward"))
    assert (base - adapted).abs().min() > 1e-3
    assert torch.allclose(torch.tensor(scored.logprobs[1]).float(), base, atol=1e-5)
    assert scored.subsets == list("cabdbe")
    assert len(set(scored.prompts)) == 5
    assert scored.chosen_tokens.tolist() == [len(p.chosen) for p in PAIRS]


def test_the_column_of_subsets() -> None:
    rows = [p.row for p in PAIRS]
    assert subset_column(rows, None) == "subset"
    both = [pair("a", "b", "c", failure="x", category="y").row]
    assert subset_column(both, None) == "category"
    assert subset_column(both, "failure") == "failure"
    assert subset_column([pair("a", "b", "c").row], None) is None
