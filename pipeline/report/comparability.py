"""Several runs: what they are called, whether their figures may be compared, and what follows, in one sentence."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.report.headline import Comparison, compared
from pipeline.report.load import Run, load
from pipeline.report.wording import interval
from pipeline.rundir import RunError

COLORS = 8  # then they come again; numbers tell the runs apart


@dataclass(frozen=True)
class Entry:
    """One run among others. Its number stands at the end of its curves, its name is unique among them."""

    number: int
    name: str
    run: Run

    @property
    def label(self) -> str:
        return f"{self.number} · {self.name}"

    @property
    def color(self) -> str:
        """Name of its colour in charts and stylesheet."""
        return f"run-{(self.number - 1) % COLORS + 1}"

    @property
    def rate(self) -> Comparison | None:
        """Policy against SFT, None while it isn't evaluated."""
        return compared(self.run, "policy", "sft")


@dataclass(frozen=True)
class Doubt:
    """Something that isn't the same in all runs. `spoils`: win rates can't be set against each other."""

    text: str
    spoils: bool


@dataclass(frozen=True)
class _Check:
    """What has to be the same; `of` gives None where a run doesn't tell."""

    what: str
    so: str
    of: Callable[[Run], Any]
    spoils: bool = True


def entries(paths: Sequence[Path]) -> list[Entry]:
    """Read the runs, finished or not.

    Raises:
        RunError: fewer than two, one of them twice, or a folder that `load` refuses.
    """
    places = [path.resolve() for path in paths]
    if len(places) < 2:
        raise RunError("give two or more run folders to compare, such as runs/ppo runs/rloo")
    for place in places:
        if places.count(place) > 1:
            raise RunError(f"{place.name} is given twice; a run can't be compared with itself")
    runs = [load(path) for path in paths]
    return [Entry(i, name, run) for i, (name, run) in enumerate(zip(_names(places), runs, strict=True), start=1)]


def _names(places: Sequence[Path]) -> list[str]:
    """The shortest ends of the paths that tell all of them apart."""
    for length in range(1, max(len(place.parts) for place in places) + 1):
        names = ["/".join(place.parts[-length:]) for place in places]
        if len(set(names)) == len(names):
            return names
    raise AssertionError("different places have different paths")


def doubts(runs: Sequence[Entry]) -> list[Doubt]:
    """Why figures can't be compared as they stand, with the groups of runs that can; empty when they can."""
    found = []
    for check in _CHECKS:
        groups: dict[str, list[str]] = {}
        for entry in runs:
            if (value := check.of(entry.run)) is not None:
                groups.setdefault(json.dumps(value, sort_keys=True, default=str), []).append(entry.name)
        if len(groups) > 1:
            among = " | ".join(", ".join(names) for names in groups.values())
            found.append(Doubt(f"Not the same {check.what} ({among}): {check.so}.", check.spoils))
    return found


def _prompts(run: Run) -> Any:
    result = run["evaluate"].result
    account = result.data.get("evaluate", {}) if result else {}
    return [account.get("sha256"), account.get("used")] if account else None


def _judge(run: Run) -> Any:
    return run["evaluate"].metrics.get("judge")


def _reward(run: Run) -> Any:
    result = run["reward"].result
    return result and result.fingerprint


def _sampling(run: Run) -> Any:
    policy, evaluate = (run.config.get(section) or {} for section in ("policy", "evaluate"))
    return evaluate.get("sampling") or policy.get("sampling")


def _sft(run: Run) -> Any:
    result = run["sft"].result
    return result and result.fingerprint


def _machine(run: Run) -> Any:
    found = [
        [stage.result.environment.get(key) for key in ("system", "device")] for stage in run.finished if stage.result
    ]
    return found[-1] if found else None


_CHECKS = (
    _Check("evaluation prompts", "win rates are over different prompts", _prompts),
    _Check("kind of judge", "win rates are by different judges", _judge),
    _Check("reward model and judge", "win rates and scores were measured by different models", _reward),
    _Check("SFT model", "each policy is compared with its own", _sft),
    _Check("sampling", "answers were drawn at different temperatures or lengths", _sampling),
    _Check("machine", "times and memory aren't on the same scale", _machine, spoils=False),
)


def verdict(runs: Sequence[Entry]) -> str:
    """Which policy wins most against SFT, and whether that is shown."""
    rated = [(entry, rate) for entry in runs if (rate := entry.rate)]
    if not rated:
        return "No comparison yet: no run has held its policy against SFT."
    rated.sort(key=lambda pair: -pair[1].rate)
    (best, rate), others = rated[0], rated[1:]
    shown = f"{interval(rate.rate, rate.low, rate.high)} of {rate.n} prompts"
    if not others:
        return f"Only {best.name} has held its policy against SFT: it wins on {shown}."
    doubtful = "" if rate.verdict == "better" else "; no policy is shown to beat SFT"
    if any(doubt.spoils for doubt in doubts([entry for entry, _ in rated])):
        return (
            "Not shown which policy is best: the runs weren't measured alike. Against its own SFT "
            f"{best.name} wins most, on {shown}; then {_listed(others)}{doubtful}."
        )
    if near := [pair for pair in others if pair[1].high >= rate.low]:
        return (
            f"Not shown which policy is best: {best.name} wins most against SFT, on {shown}, but its interval overlaps "
            f"{'that' if len(near) == 1 else 'those'} of {_listed(near)}{doubtful}."
        )
    return f"{best.name} wins most: its policy wins against SFT on {shown}; then {_listed(others)}{doubtful}."


def _listed(rated: Sequence[tuple[Entry, Comparison]]) -> str:
    """The first two with their win rates, and how many more there are."""
    names = [f"{entry.name} ({interval(rate.rate, rate.low, rate.high)})" for entry, rate in rated]
    more = [f"{len(names) - 2} more"] if len(names) > 3 else names[2:3]
    return " and ".join(filter(None, [", ".join([*names[:2], *more][:-1]), [*names[:2], *more][-1]]))
