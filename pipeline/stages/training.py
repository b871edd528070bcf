"""A policy under way: what learns, what pays, what watches and what has been, as one thing to keep and go on from."""

from collections.abc import Mapping
from typing import Any

from pipeline.config import Config
from pipeline.gates import require
from pipeline.lm.backbone import Backbone
from pipeline.lm.reward import RewardModel
from pipeline.stages.alarms import Watch
from pipeline.stages.inputs import demonstrations
from pipeline.stages.learner import Learner
from pipeline.stages.policy_log import curves, outcome
from pipeline.stages.score import Score
from pipeline.stages.terms import build_terms


class Training:
    """Everything that one policy step leaves for the next.

    Attributes:
        history: the figures of every step so far.
        stopped_by: the alarm that ends the stage, or None.
    """

    def __init__(self, config: Config, backbone: Backbone) -> None:
        cfg = config.policy
        self._config = config
        self.learner = Learner(backbone, cfg, config.seed)
        judge = RewardModel(backbone, "judge") if "judge" in backbone.roles else None
        free = demonstrations(config) if cfg.stock_phrase_coef else ()
        self.score = Score(backbone, build_terms(config, backbone), cfg, free, judge)
        self.watch = Watch(self.learner, cfg.alarms)
        self.history: list[dict[str, float]] = []
        self.stopped_by: str | None = None
        self._returned_to: int | None = None

    def state(self) -> dict[str, Any]:
        """All that must be kept to go on exactly."""
        return {
            "history": self.history,
            "learner": self.learner.state(),
            "score": self.score.state(),
            "watch": self.watch.state(),
        }

    def restore(self, state: Mapping[str, Any] | None) -> None:
        """Take over what another process left; None = it begins."""
        if state is None:
            return
        self.history = state["history"]
        self.learner.restore(state["learner"])
        self.score.restore(state["score"])
        self.watch.restore(state["watch"])

    def look_back(self, row: dict[str, float]) -> None:
        """After a step, with its figures: do the first ones hold, and is anything going wrong? Goes back if it must.

        Raises:
            GateError: the first step's figures don't hold.
        """
        self.history.append(row)
        if len(self.history) == 1:
            require("policy", outcome(self.history), self._config.gates.skip)
        self.stopped_by = self.watch.look(self.history)
        if self.stopped_by:
            self._returned_to = self.watch.go_back()

    def outcome(self) -> dict[str, Any]:
        """The stage's figures."""
        ending = {"stopped_by": self.stopped_by, "returned_to": self._returned_to} if self.stopped_by else {}
        return {
            **outcome(self.history),
            "algorithm": self._config.policy.algorithm,
            "steps": len(self.history),
            "alarms": self.watch.first,
            **ending,
            **curves(self.history),
            "trainable_parameters": self.learner.trainable,
        }
