"""What a completion is worth to the policy: the terms' weighted sum, after the rules that the config sets."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from pipeline.config import PolicyConfig
from pipeline.data.schema import Prompt
from pipeline.evaluation.reward_terms import Terms, completed
from pipeline.evaluation.text import StockPhrases, repetition
from pipeline.lm.backbone import Backbone
from pipeline.lm.policy import completion_texts
from pipeline.lm.reward import RewardModel
from pipeline.rl.rollout import Rollout


class Score:
    """final = rule(score) − stock_phrase_coef · surplus, per completion.

    Args:
        backbone: reads completions as texts.
        terms: give the score.
        cfg: the rules and prices.
        demonstrations: texts whose phrases are free; only read when `cfg.stock_phrase_coef` is not 0.
        judge: a reward model of other pairs, which pays nothing and only watches; None = nobody does.
    """

    def __init__(
        self,
        backbone: Backbone,
        terms: Terms,
        cfg: PolicyConfig,
        demonstrations: Sequence[str] = (),
        judge: RewardModel | None = None,
    ) -> None:
        self._backbone, self.terms, self._cfg, self._judge = backbone, terms, cfg, judge
        self._stock = StockPhrases(demonstrations) if cfg.stock_phrase_coef else None

    def state(self) -> dict[str, Any]:
        """What it remembers of earlier steps."""
        return {"recent": None if self._stock is None else self._stock.recent, "scales": self.terms.scales}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over what another process remembered."""
        self.terms.scales = state["scales"]
        if self._stock is not None:
            self._stock.recent = state["recent"]

    def __call__(self, rollout: Rollout, prompts: Sequence[Prompt]) -> tuple[Tensor, Tensor, dict[str, float]]:
        """The scores [B] of completions of `prompts` [P], what the policy is paid [B], and figures beside it."""
        size = 2 * self._cfg.microbatch_size
        texts = completion_texts(self._backbone, rollout)
        scores, figures = self.terms(completed(rollout, prompts, texts))
        final = end_of_sequence_rule(scores, rollout.context["stopped"], self._cfg)
        figures["objective/repetition"] = repetition(texts)
        if self._judge is not None:  # one completion of each prompt tells enough
            one = torch.arange(0, len(rollout), self._cfg.group_size, device=scores.device)
            figures["objective/judge"] = self._judge.score(rollout.select(one), batch_size=size).mean().item()
        if self._stock is not None:
            surplus = final.new_tensor(self._stock.surplus(texts))
            final = final - self._cfg.stock_phrase_coef * surplus
            figures["objective/stock_phrases"] = surplus.mean().item()
        return scores, final, figures


def end_of_sequence_rule(scores: Tensor, stopped: Tensor, cfg: PolicyConfig) -> Tensor:
    """Scores [B] after clipping and after the rule for completions that met the limit."""
    if cfg.score_clip is not None:
        scores = scores.clamp(-cfg.score_clip, cfg.score_clip)
    if cfg.missing_eos == "replace":
        return torch.where(stopped, scores, torch.full_like(scores, cfg.missing_eos_value))
    return torch.where(stopped, scores, scores + cfg.missing_eos_value)
