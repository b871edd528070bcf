"""AlpacaEval's figures of a system against a baseline, as its leaderboards have them: in percent."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from pipeline.evaluation.alpaca import AlpacaError, Annotation
from pipeline.evaluation.intervals import mean_interval
from pipeline.evaluation.length_control import LengthControlled, length_controlled


@dataclass(frozen=True)
class Leaderboard:
    """A system's line, in percent.

    Attributes:
        system, baseline: their names.
        win_rate: 100 · mean of (preference − 1) over the rows with a verdict.
        standard_error: 100 · standard deviation (ddof 1) / √n; None for a single row.
        low, high: 95 % interval of the win rate (`intervals.mean_interval`).
        n, n_wins, n_wins_base, n_draws: rows with a verdict; those above, below and exactly at a tie.
        n_without_verdict: the other rows, which count for nobody.
        mean_length, mean_length_base: of the answers, in characters.
        length_controlled: the win rate at equal length, here in shares. AlpacaEval's own rests on verdicts about other
            models as well, and differs.
    """

    system: str
    baseline: str
    win_rate: float
    standard_error: float | None
    low: float
    high: float
    n: int
    n_wins: int
    n_wins_base: int
    n_draws: int
    n_without_verdict: int
    mean_length: float
    mean_length_base: float
    length_controlled: LengthControlled

    def figures(self) -> dict[str, Any]:
        """Flat and in percent, for JSON."""
        found = self.length_controlled
        return {name: value for name, value in asdict(self).items() if name != "length_controlled"} | {
            "length_controlled_win_rate": 100 * found.rate,
            "length_controlled_low": 100 * found.low,
            "length_controlled_high": 100 * found.high,
            "length_overlap": 100 * found.overlap,
        }


def leaderboard(
    annotations: Sequence[Annotation], *, system: str | None = None, resamples: int = 2000, seed: int = 0
) -> Leaderboard:
    """The line of `system`, or else of the system that the first row calls `generator_2`.

    Rows that have the two the other way round are turned. Each row counts once, as AlpacaEval does it.

    Args:
        annotations: verdicts on two systems.
        system: whose win rate.
        resamples, seed: of the bootstrap of the length-controlled win rate.

    Raises:
        AlpacaError: more than two systems, none of that name, or no verdict at all.
    """
    rows = [row for row in facing(annotations, system) if row.preference is not None]
    if not rows:
        raise AlpacaError("there is no verdict: every preference is null")
    shares = np.array([row.preference for row in rows], dtype=float) - 1
    ours, theirs = np.array([(len(row.output_2), len(row.output_1)) for row in rows]).T
    low, high = mean_interval(shares)
    return Leaderboard(
        system=rows[0].generator_2,
        baseline=rows[0].generator_1,
        win_rate=100 * float(shares.mean()),
        standard_error=100 * float(shares.std(ddof=1)) / len(rows) ** 0.5 if len(rows) > 1 else None,
        low=100 * low,
        high=100 * high,
        n=len(rows),
        n_wins=int(np.sum(shares > 0.5)),
        n_wins_base=int(np.sum(shares < 0.5)),
        n_draws=int(np.sum(shares == 0.5)),
        n_without_verdict=len(annotations) - len(rows),
        mean_length=float(ours.mean()),
        mean_length_base=float(theirs.mean()),
        length_controlled=length_controlled(
            shares[:, None].tolist(), (ours - theirs)[:, None].tolist(), resamples=resamples, seed=seed
        ),
    )


def facing(annotations: Sequence[Annotation], system: str | None = None) -> list[Annotation]:
    """The rows with `system` (by default the first row's `generator_2`) as `generator_2`, turned where need be.

    Raises:
        AlpacaError: none of that name, or a row about others than the two of the first row.
    """
    pair = (annotations[0].generator_1, annotations[0].generator_2)
    system = pair[1] if system is None else system
    if system not in pair:
        raise AlpacaError(f"there is no {system!r}; the verdicts are about {' and '.join(dict.fromkeys(pair))}")
    rows = []
    for number, row in enumerate(annotations, start=1):
        if {row.generator_1, row.generator_2} != set(pair):
            raise AlpacaError(
                f"row {number} compares {row.generator_1} with {row.generator_2}, row 1 {' with '.join(pair)}: "
                "give one file for each pair"
            )
        rows.append(row if row.generator_2 == system else row.turned())
    return rows
