"""How many labels does each way of asking need for the same reward accuracy? A simulation on pairs whose labels exist.

    python scripts/bench_asking.py configs/quickstart.yaml --seeds 20 --json FILE --figure docs/asking.png

Each text is read once by the base model, adapters off; its features are the final hidden state at the end of turn and
the mean over the answer. What is trained as labels come in is a Bradley–Terry head on these (logistic regression on
differences of features) and an ensemble of such heads on bootstrap resamples: the head only, no adapter. Pairs are split
by prompt into a pool, whose labels are revealed in the order that a strategy asks for, and a test part.
"""

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.collect.asking import disagreement_of, interleaved
from pipeline.progress import bar

Array = NDArray[np.float64]
STEPS = (20, 30, 40, 60, 80, 120, 160, 240, 320, 480, 640, 800)  # labels at which heads are trained anew
MEMBERS = 8
STRENGTH = 0.02  # C of the ridge on standardised features
STRATEGIES = ("random", "disagreement", "mix")


@dataclass(frozen=True)
class Pairs:
    """Differences of features, chosen less rejected, [n, d], and the prompt of each pair as a number [n]."""

    differences: Array
    prompts: NDArray[np.int64]


def embed(config_path: Path) -> Pairs:
    """Features of the quickstart's pairs under its base."""
    import torch

    from pipeline.config import load_config
    from pipeline.stages.inputs import encode_pairs, load_backbone, read

    config = load_config(config_path)
    assert config.reward is not None
    backbone = load_backbone(config)
    pairs = encode_pairs(backbone.chat, read(config, config.reward.data, "preferences"), config.reward.max_length)
    texts = {tuple(ids): pair.prompt_length for pair in pairs for ids in (pair.chosen, pair.rejected)}
    known: dict[tuple[int, ...], Any] = {}
    ordered = sorted(texts, key=len)
    with bar("features", len(ordered)) as progress, torch.no_grad():
        for start in range(0, len(ordered), 16):
            batch = ordered[start : start + 16]
            hidden = backbone.hidden(None, backbone.pad([list(ids) for ids in batch]))
            for row, ids in zip(hidden.double().cpu().numpy(), batch, strict=True):
                known[ids] = np.concatenate([row[len(ids) - 1], row[texts[ids] : len(ids)].mean(0)])
            progress.advance(len(batch))
    numbers: dict[str, int] = {}
    prompts = [numbers.setdefault(pair.row.key, len(numbers)) for pair in pairs]
    differences = [known[tuple(pair.chosen)] - known[tuple(pair.rejected)] for pair in pairs]
    return Pairs(np.array(differences), np.array(prompts))
