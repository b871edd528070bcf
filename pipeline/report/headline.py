"""What the figures say, in one sentence, and what to be careful about. Never more than the intervals allow."""

from dataclasses import dataclass
from typing import Any

from pipeline.gates import findings
from pipeline.report.load import Run
from pipeline.report.wording import NARROW, STAGE_NAMES, interval, number, percent, system_name, under

SAME_LENGTH = 0.01  # below this relative difference, answers count as equally long
LOW_EOS = 0.9
PAST = 1.5  # times the KL of the judge's peak, from which a policy counts as past it


@dataclass(frozen=True)
class Comparison:
    """Win rate of system `a` over system `b`; ties count half."""

    a: str
    b: str
    rate: float
    low: float
    high: float
    wins: int
    ties: int
    losses: int
    n: int

    @property
    def verdict(self) -> str:
        """better, worse, or open: the 95 % interval includes one half."""
        return "better" if self.low > 0.5 else "worse" if self.high < 0.5 else "open"


def comparisons(metrics: dict[str, Any]) -> list[Comparison]:
    """All comparisons of an evaluation, in its own order."""
    prefix, suffix = "win_rate.", "_wins"
    pairs = [key[len(prefix) : -len(suffix)] for key in metrics if key.startswith(prefix) and key.endswith(suffix)]
    return [_comparison(metrics, pair) for pair in pairs if "_vs_" in pair]


def _comparison(metrics: dict[str, Any], pair: str) -> Comparison:
    a, b = pair.split("_vs_", 1)
    keys = ("", "_low", "_high", "_wins", "_ties", "_losses", "_n")
    rate, low, high, wins, ties, losses, n = (metrics[f"win_rate.{pair}{key}"] for key in keys)
    return Comparison(a, b, rate, low, high, wins, ties, losses, n)


def compared(run: Run, a: str, b: str) -> Comparison | None:
    """One comparison, or None when it wasn't made."""
    return next((c for c in comparisons(run["evaluate"].metrics) if (c.a, c.b) == (a, b)), None)


def headline(run: Run) -> str:
    """The outcome in a sentence or two."""
    main = compared(run, "policy", "sft")
    if main is None:
        return _unfinished(run)
    shown = f"{interval(main.rate, main.low, main.high)} of {main.n} prompts"
    first = {
        "better": f"The policy beats SFT on {shown}",
        "worse": f"The policy is worse than SFT: it wins on {shown}",
        "open": f"Nothing is shown: the policy wins on {shown} against SFT, and the interval includes 50{NARROW}%",
    }[main.verdict]
    metrics = run["evaluate"].metrics
    parts = [first]
    if length := _length(metrics.get("mean_tokens.policy"), metrics.get("mean_tokens.sft")):
        parts.append(f"answers are {length}")
    if "kl" in metrics:
        parts.append(f"KL {number(metrics['kl'], 1)}")
    return "; ".join(parts) + "."


def _length(policy: float | None, sft: float | None) -> str:
    if not policy or not sft:
        return ""
    change = policy / sft - 1
    if abs(change) < SAME_LENGTH:
        return "as long"
    return f"{percent(abs(change))} {'longer' if change > 0 else 'shorter'}"


def _unfinished(run: Run) -> str:
    done = [STAGE_NAMES[stage.name] for stage in run.finished]
    if run["evaluate"].result:
        return "Evaluated, but policy and SFT weren't compared."
    verb = "is" if len(done) == 1 else "are"
    return f"No comparison yet: {' and '.join(filter(None, [', '.join(done[:-1]), done[-1]]))} {verb} finished."


def cautions(run: Run) -> list[str]:
    """What a careful reader would ask about, answered from the figures. Empty when there is nothing."""
    return [
        sentence
        for check in (_gates, _alarms, _past_the_peak, _sample_size, _sft, _best_of, _dpo, _judge, _stopping)
        for sentence in check(run)
    ]


def _gates(run: Run) -> list[str]:
    closed = [one for stage in run.finished for one in findings(stage.name, stage.metrics) if not one.held]
    how = {True: "passed over on request", False: "found closed"}
    return [f"Gate {one.gate.name} was {how[one.gate.name in run.skipped_gates]}: {one.found}." for one in closed]


def _alarms(run: Run) -> list[str]:
    metrics = run["policy"].metrics
    found = [
        f"Policy optimisation raised the alarm {name.replace('_', ' ')} at step {step}."
        for name, step in metrics.get("alarms", {}).items()
    ]
    if metrics.get("stopped_by"):
        stopped = f"It was stopped at step {metrics['steps']}"
        back = metrics.get("returned_to")
        choice = f", and the policy is that of step {back}, chosen by the judge: its win rates flatter it a little"
        found.append(stopped + (choice if back else "") + ".")
    return found


def _past_the_peak(run: Run) -> list[str]:
    curve, kl = under(run["policy"].metrics, "curve.judge."), run["evaluate"].metrics.get("kl")
    if kl is None or not curve.get("peak_inside") or curve["caveats"] or kl < PAST * curve["peak_kl"]:
        return []
    return [
        f"The judge's score peaked at KL {number(curve['peak_kl'], 1)} (fitted), and the policy is at KL "
        f"{number(kl, 1)}: it is over-optimised."
    ]


def _sample_size(run: Run) -> list[str]:
    metrics = run["evaluate"].metrics
    main = compared(run, "policy", "sft")
    if main is None or "detectable_rate" not in metrics:
        return []
    n = metrics.get("prompts", main.n)
    limit = f"With {n} prompts, only a win rate of {percent(metrics['detectable_rate'])} or more"
    if metrics["detectable_rate"] >= 0.995:
        limit = f"With {n} prompts, hardly any win rate"
    if main.verdict == "open" or metrics["detectable_rate"] > 0.65:
        return [f"{limit} would be told from chance (80{NARROW}% power)."]
    return []


def _sft(run: Run) -> list[str]:
    pair = compared(run, "sft", "base")
    if pair is None or pair.verdict == "better":
        return []
    shown = interval(pair.rate, pair.low, pair.high)
    if pair.verdict == "worse":
        return [f"SFT is worse than the base model: it wins on {shown}. Look at the demonstrations and the loss first."]
    return [f"SFT does not beat the base model: it wins on {shown}, which includes 50{NARROW}%."]


def _best_of(run: Run) -> list[str]:
    pair = compared(run, "policy", "best_of_n")
    if pair is None or pair.verdict != "worse":
        return []
    name = system_name("best_of_n", run["evaluate"].metrics.get("best_of"))
    rate = interval(pair.rate, pair.low, pair.high)
    return [f"Taking the {name} SFT answers does better than the policy, which wins on {rate} against it."]


def _dpo(run: Run) -> list[str]:
    pair = compared(run, "policy", "dpo")
    if pair is None or pair.verdict != "worse":
        return []
    rate = interval(pair.rate, pair.low, pair.high)
    return [f"DPO on the reward model's pairs does better than the policy, which wins on {rate} against it."]


def _judge(run: Run) -> list[str]:
    metrics, reward = run["evaluate"].metrics, run["reward"].metrics
    found = []
    if metrics.get("judge") == "reward":
        found.append("The judge is the reward model that the policy was trained on, so the win rates flatter it.")
    if metrics.get("judge") == "rewards":
        found.append("The judge is what the policy was paid for: it tells whether that was learned, and nothing else.")
    prefix = "judge_" if metrics.get("judge") == "judge" else ""
    low = reward.get(f"{prefix}accuracy_low")
    if metrics and low is not None and low <= 0.5:
        found.append(
            f"The judge isn't shown to be better than a coin (accuracy {_accuracy(reward, prefix)}), "
            "so the win rates mean little."
        )
    return found


def _accuracy(metrics: dict[str, Any], prefix: str) -> str:
    rate, low, high = (metrics[f"{prefix}accuracy{part}"] for part in ("", "_low", "_high"))
    return interval(rate, low, high, digits=1)


def _stopping(run: Run) -> list[str]:
    rate = run["evaluate"].metrics.get("eos_rate.policy")
    if rate is None or rate >= LOW_EOS:
        return []
    return [f"Only {percent(rate)} of the policy's answers end by themselves; the others were cut at the length limit."]
