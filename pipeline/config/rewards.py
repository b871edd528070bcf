"""What the policy is paid for: `policy.rewards`, one term a name."""

from pydantic import Field, model_validator

from pipeline.config.base import Section
from pipeline.config.judges import FUNCTION, JUDGE_NAME

OWN = "reward"  # the run's own reward model


class RewardTerm(Section):
    """weight × the value of a function or of a reward model."""

    weight: float = Field(1.0, description="0 = it is logged and pays nothing")
    function: str | None = Field(
        None, description="module:function of (prompt, completion, row), gives a number, which counts as it is"
    )
    model: str | None = Field(
        None,
        description="'reward' = the run's own reward model; another run's folder, an adapter's folder, or a sequence "
        "classifier (hub id or folder); on its scale SFT's answers have mean 0, deviation 1",
    )

    @model_validator(mode="after")
    def _one_of_the_two(self) -> "RewardTerm":
        if (self.function is None) == (self.model is None):
            raise ValueError("give exactly one of function (module:function) and model ('reward', a folder, a hub id)")
        if self.function is not None and not FUNCTION.fullmatch(self.function):
            raise ValueError("function is 'module:function', such as checks:is_short")
        return self


Rewards = dict[str, RewardTerm]


def own_model_alone() -> Rewards:
    """The default: the run's own reward model, weight 1."""
    return {"reward": RewardTerm(model=OWN)}


def check_terms(terms: Rewards) -> None:
    """Raises ValueError for a name that can't be logged, or where nothing is paid."""
    for name in terms:
        if not JUDGE_NAME.fullmatch(name):
            raise ValueError(f"rewards: {name!r} can't be a term's name; use a-z, 0-9 and _, a letter first")
    if not any(term.weight for term in terms.values()):
        raise ValueError("rewards: no term has a weight, so that nothing would be learned")
