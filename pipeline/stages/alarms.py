"""Signs that policy optimisation goes wrong, looked for after every step, and the way back."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from pipeline.checkpoints import overwrite
from pipeline.config import AlarmConfig
from pipeline.progress import say
from pipeline.stages.learner import Learner

Row = Mapping[str, float]


@dataclass(frozen=True)
class Alarm:
    """`measure` gives, from the latest steps, the first ones and the limit, a sentence when something is wrong."""

    name: str
    measure: Callable[["Recent", AlarmConfig], str | None]


class Recent:
    """Means over the latest steps and over the first ones."""

    def __init__(self, history: Sequence[Row], window: int) -> None:
        self._history, self._window = history, window

    def now(self, key: str) -> float | None:
        """Mean of the latest `window` steps."""
        return self.at(key, len(self._history))

    def first(self, key: str) -> float | None:
        """Mean of the first `window` steps, once they are all over."""
        return self.at(key, self._window) if len(self._history) >= 2 * self._window else None

    def best(self, key: str) -> tuple[int, float] | None:
        """The step whose mean over the `window` up to it is the highest, and that mean."""
        means = ((end, self.at(key, end)) for end in range(self._window, len(self._history) + 1))
        return max(((end, mean) for end, mean in means if mean is not None), key=lambda pair: pair[1], default=None)

    def at(self, key: str, step: int) -> float | None:
        """Mean of the `window` steps up to `step`; None where one lacks the figure, or there are fewer."""
        rows = self._history[max(0, step - self._window) : step]
        if len(rows) < self._window or any(key not in row for row in rows):
            return None
        return sum(row[key] for row in rows) / len(rows)


def _kl(recent: Recent, cfg: AlarmConfig) -> str | None:
    kl = recent.now("objective/kl")
    if kl is None or kl <= cfg.max_kl:
        return None
    return f"KL from SFT is {kl:.0f} nats an answer (limit {cfg.max_kl:g}): raise policy.kl_coef"


def _entropy(recent: Recent, cfg: AlarmConfig) -> str | None:
    now, first = recent.now("policy/entropy"), recent.first("policy/entropy")
    if now is None or first is None or now >= cfg.min_entropy * first:
        return None
    return f"entropy fell from {first:.2g} to {now:.2g} nats a token: lower the learning rate, raise kl_coef"


def _length(recent: Recent, cfg: AlarmConfig) -> str | None:
    now, first = recent.now("objective/tokens"), recent.first("objective/tokens")
    if now is None or first is None or first / cfg.max_length_change <= now <= first * cfg.max_length_change:
        return None
    return f"answers went from {first:.0f} to {now:.0f} tokens: does the reward model like length?"


def _repetition(recent: Recent, cfg: AlarmConfig) -> str | None:
    share = recent.now("objective/repetition")
    if share is None or share <= cfg.max_repetition:
        return None
    return f"{share:.0%} of an answer's three-word phrases repeat earlier ones in it (limit {cfg.max_repetition:.0%})"


def _over_optimisation(recent: Recent, cfg: AlarmConfig) -> str | None:
    best, now = recent.best("objective/judge"), recent.now("objective/judge")
    if best is None or now is None:
        return None
    score_then, score = recent.at("objective/score", best[0]), recent.now("objective/score")
    assert score_then is not None
    assert score is not None
    if best[1] - now <= cfg.max_judge_drop or score <= score_then:
        return None
    return (
        f"since step {best[0]} the reward model's score rose from {score_then:.2f} to {score:.2f} and the judge's fell "
        f"from {best[1]:.2f} to {now:.2f}: the policy learns what the reward model gets wrong"
    )


ALARMS = (
    Alarm("kl", _kl),
    Alarm("entropy", _entropy),
    Alarm("length", _length),
    Alarm("repetition", _repetition),
    Alarm("over_optimisation", _over_optimisation),
)


def raised(history: Sequence[Row], cfg: AlarmConfig) -> dict[str, str]:
    """What is wrong after the latest step, by the alarm's name."""
    recent = Recent(history, cfg.window)
    found = ((alarm.name, alarm.measure(recent, cfg)) for alarm in ALARMS)
    return {name: text for name, text in found if text is not None}


class Watch:
    """Looks after every step; keeps the weights that were best in the judge's eyes, to return to them.

    Only a run that an alarm stops goes back: otherwise the last weights are the result, and no judge has chosen them.
    """

    def __init__(self, learner: Learner, cfg: AlarmConfig) -> None:
        self._learner, self._cfg = learner, cfg
        self._kept: list[Tensor] = []
        self._kept_at = 0
        self.first: dict[str, int] = {}  # the step at which each alarm was first raised

    def state(self) -> dict[str, Any]:
        """All that must be kept to go on exactly."""
        return {"kept": self._kept, "kept_at": self._kept_at, "first": self.first}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over what another process left."""
        self._kept, self._kept_at, self.first = state["kept"], state["kept_at"], state["first"]

    def look(self, history: Sequence[Row]) -> str | None:
        """After a step: warn of what is new; the name of an alarm that stops the run, or None."""
        best = Recent(history, self._cfg.window).best(self._criterion(history))
        if best is not None and best[0] == len(history):
            self._kept = [parameter.detach().clone() for parameter in self._learner.parameters]
            self._kept_at = len(history)
        found = raised(history, self._cfg)
        for name, text in found.items():
            if name not in self.first:
                self.first[name] = len(history)
                say(f"step {len(history)}, alarm {name}: {text}")
        return next((name for name in found if name in self._cfg.stop), None)

    def go_back(self) -> int | None:
        """Put the best weights back; the step after which they were kept, or None where none were."""
        if not self._kept:
            return None
        overwrite(self._learner.parameters, self._kept)
        return self._kept_at

    @staticmethod
    def _criterion(history: Sequence[Row]) -> str:
        """Without a judge, what the policy is paid is all there is."""
        return "objective/judge" if "objective/judge" in history[-1] else "objective/return"
