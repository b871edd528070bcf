"""What must hold before the next stage may build on a result: what was measured, what is usual, what to do.

A gate reads figures that a stage has left, so a closed one costs nothing that was computed: mend the cause and repeat
that stage, or pass over the gate by its name (`gates.skip`), which the report then shows.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.rundir import RunError

Metrics = Mapping[str, Any]


class GateError(RunError):
    """A result that nothing should be built on."""


@dataclass(frozen=True)
class Gate:
    """One condition on a stage's figures.

    Attributes:
        name: as `gates.skip` says it.
        stage: whose figures.
        needs: keys that must be there, or it says nothing.
        holds: whether it is open.
        found: what was measured, as a sentence.
        usual: what a sound run has, and where the limit is.
        advice: what to do.
    """

    name: str
    stage: str
    needs: tuple[str, ...]
    holds: Callable[[Metrics], bool]
    found: Callable[[Metrics], str]
    usual: str
    advice: str


@dataclass(frozen=True)
class Finding:
    """A gate held against figures."""

    gate: Gate
    held: bool
    found: str


GATES = (
    Gate(
        "sft_rows",
        "sft",
        ("truncated_away", "supervised_tokens"),
        lambda m: m["truncated_away"] <= 0.1 and m["supervised_tokens"] > 0,
        lambda m: f"{m['truncated_away']:.0%} of the demonstrations have no answer left once cut to sft.max_length",
        "none; at most 10 %",
        "raise sft.max_length",
    ),
    Gate(
        "sft_learns",
        "sft",
        ("loss_before", "loss"),
        lambda m: m["loss"] < m["loss_before"],
        lambda m: f"the held-out loss went from {m['loss_before']:.3f} to {m['loss']:.3f} nats a token",
        "it falls",
        "change sft.learning_rate by a factor of three either way, or look at the rows (wrong template, noise)",
    ),
    Gate(
        "sft_ends",
        "reward",
        ("sft_eos_rate",),
        lambda m: m["sft_eos_rate"] >= 0.5,
        lambda m: f"{m['sft_eos_rate']:.0%} of the SFT model's answers end by themselves",
        "90 % or more; at least 50 %",
        "train SFT longer, or raise policy.sampling.max_new_tokens above the demonstrations' length",
    ),
    Gate(
        "reward_beats_chance",
        "reward",
        ("accuracy", "accuracy_low"),
        lambda m: m["accuracy_low"] > 0.5,
        lambda m: (
            f"the reward model orders {m['accuracy']:.1%} of the pairs right, 95 % lower bound {m['accuracy_low']:.1%}"
        ),
        "60–80 % on people's preferences; a lower bound above 50 %",
        "give more pairs, or train longer: a policy trained on a coin learns noise",
    ),
    Gate(
        "reward_beats_length",
        "reward",
        ("accuracy_low", "length_baseline"),
        lambda m: m["accuracy_low"] > m["length_baseline"],
        lambda m: (
            f"the reward model's lower bound is {m['accuracy_low']:.1%}, length alone orders "
            f"{m['length_baseline']:.1%} right"
        ),
        "5 points or more above length",
        "match the lengths of chosen and rejected answers, or the policy will learn length and nothing else",
    ),
    Gate(
        "score_alone",
        "reward",
        ("score_batch_error",),
        lambda m: m["score_batch_error"] <= 0.05,
        lambda m: f"a score moves by up to {m['score_batch_error']:.2g} deviations with its neighbours in a batch",
        "below 10⁻⁴ in fp32 and .02 in bf16; at most .05",
        "report it as a bug, with the model's name; model.fast=false may help",
    ),
    Gate(
        "dpo_learns",
        "dpo",
        ("loss_before", "loss"),
        lambda m: m["loss"] < m["loss_before"],
        lambda m: f"DPO's held-out loss went from {m['loss_before']:.4f} to {m['loss']:.4f} nats a pair",
        "it falls from ln 2 = 0.6931",
        "change dpo.learning_rate by a factor of three either way, or raise dpo.beta",
    ),
    Gate(
        "starts_at_reference",
        "policy",
        ("kl_first",),
        lambda m: abs(m["kl_first"]) <= 1e-3,
        lambda m: f"the first step's KL from SFT is {m['kl_first']:.2g} nats",
        "exactly 0: the policy begins as a copy of SFT",
        "report it as a bug, with the model's name; model.fast=false may help",
    ),
    Gate(
        "first_ratio",
        "policy",
        ("first_ratio_error",),
        lambda m: m["first_ratio_error"] <= 0.1,
        lambda m: f"the first minibatch's ratio of probabilities is off 1 by up to {m['first_ratio_error']:.2g}",
        "below 10⁻⁵ in fp32, below .05 in bf16; at most .1",
        "set model.dtype: float32; if it stays, report it as a bug",
    ),
)


def findings(stage: str, metrics: Metrics) -> list[Finding]:
    """Every gate that a stage's figures speak of."""
    told = (gate for gate in GATES if gate.stage == stage and all(key in metrics for key in gate.needs))
    return [Finding(gate, gate.holds(metrics), gate.found(metrics)) for gate in told]


def require(stage: str, metrics: Metrics, skip: Iterable[str] = ()) -> None:
    """Refuse to build on figures that don't hold.

    Raises:
        GateError: names every closed gate that isn't skipped.
    """
    passed_over = set(skip)
    closed = [one for one in findings(stage, metrics) if not one.held and one.gate.name not in passed_over]
    if closed:
        raise GateError("\n".join([*map(sentence, closed), advice(closed)]))


def sentence(finding: Finding) -> str:
    """One closed gate, in words."""
    gate = finding.gate
    return f"gate {gate.name}: {finding.found} (usual: {gate.usual}). What to do: {gate.advice}."


def advice(closed: Sequence[Finding]) -> str:
    """How to go on all the same."""
    names = ", ".join(finding.gate.name for finding in closed)
    return f"Nothing is lost. To go on all the same, which the report will show: 'gates.skip=[{names}]'"
