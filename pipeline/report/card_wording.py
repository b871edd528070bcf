"""What a reward model's card says in words: never more than its intervals allow."""

from collections.abc import Mapping
from typing import Any

from pipeline.report.wording import interval, number, percent, turning_point, under

BATCH_ERROR = 0.05  # deviations; the gate `score_alone` has the same limit
CUT = 0.01  # share of pairs at the limit of tokens that is worth a word

NAMES = {"reward": "reward model", "judge": "judge"}

Figures = Mapping[str, Any]


def headline(figures: Figures) -> str:
    """The outcome in a sentence."""
    right = interval(figures["accuracy"], figures["accuracy_low"], figures["accuracy_high"], digits=1)
    wins = "longer" if figures["longer_wins"] >= 0.5 else "shorter"
    length = f"“the {wins} wins” {percent(figures['length_baseline'], 1)}"
    return f"The {NAMES[figures['adapter']]} orders {right} of {figures['n']:,} pairs right; {length}."


def notes(figures: Figures) -> list[str]:
    """What a careful reader would ask about, one sentence each; none where there is nothing."""
    found = []
    for key, text in (("length_baseline", "length"), ("logprob_baseline", "the base model's log-probabilities")):
        if figures["accuracy_low"] <= figures[key]:
            share = percent(figures[key], 1)
            found.append(f"It isn't shown to order more pairs right than {text} alone, which orders {share}.")
    if figures.get("seen_prompts"):
        share = percent(figures["seen_prompts"])
        found.append(f"{share} of the pairs are to prompts that it was trained on, which flatters it.")
    if figures["truncated"] > CUT:
        found.append(f"{percent(figures['truncated'])} of the pairs reach the limit of tokens, where answers are cut.")
    if figures["left_out"]:
        found.append(f"{figures['left_out']:,} rows couldn't be used and were left out.")
    if figures["score_batch_error"] > BATCH_ERROR:
        moved = number(figures["score_batch_error"], 3)
        found.append(f"A score moves by up to {moved} deviations with its neighbours in a batch.")
    return found


def subset_names(figures: Figures) -> list[str]:
    """The subsets that have figures, in their order."""
    head, tail = "subsets.", ".accuracy"
    return [key[len(head) : -len(tail)] for key in figures if key.startswith(head) and key.endswith(tail)]


def turning_points(figures: Figures) -> str:
    """Where the best of n turns from gaining to gaming, told by each model; "" where nothing was fitted."""
    curves = {name: under(figures, f"best_of_n_curve.{name}.") for name in NAMES}
    return " ".join(filter(None, (turning_point(f"The {NAMES[name]}'s", curve) for name, curve in curves.items())))


def scorers(row: Mapping[str, float]) -> list[str]:
    """Whose scores a row of the best-of-n curve tells, the one that chooses first."""
    return [key for key in row if f"{key}_se" in row]
