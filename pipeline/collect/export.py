"""Labels as files: pairs in the format that reward models train on, every label beside them, and what they are worth.

FILE.jsonl          prompt, chosen, rejected, margin, and where each row comes from
FILE.labels.jsonl   every label with its verdict: ties, "both bad" and skips too; what judges of kind human read
FILE.summary.json   counts, agreement, habits (`quality.py`)
"""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from statistics import median
from typing import Any, Literal

from pipeline.atomic import write_atomically
from pipeline.collect.errors import CollectError
from pipeline.collect.quality import quality, split
from pipeline.collect.records import STRENGTHS, Label
from pipeline.collect.store import ADJUDICATOR, Store, labels_path

Merge = Literal["majority", "all"]
Row = dict[str, Any]
PREFERENCES, LABELS, SUMMARY = "preferences.jsonl", ".labels.jsonl", ".summary.json"


@dataclass(frozen=True)
class Export:
    """What the three files hold."""

    preferences: list[Row]
    labels: list[Row]
    summary: dict[str, Any]


def labels_of(run: Path) -> list[Label]:
    """The labels of a run.

    Raises:
        CollectError: nobody has given any.
    """
    path = labels_path(run)
    labels: list[Label] = []
    if path.is_file():
        store = Store(path)
        labels = store.labels()
        store.close()
    if not labels:
        raise CollectError(f"{run} has no labels yet: `align collect {run}` asks for them")
    return labels


def export(labels: Sequence[Label], merge: Merge = "majority") -> Export:
    """Rows of the files. Planted pairs are no preferences, and an adjudicator's verdict stands for all others.

    Args:
        merge: majority gives a pair one row where more than half of those who didn't skip prefer one answer; all gives
            each label that prefers one a row of its own.

    The margin is strength/3, on average over the labels behind the row where they tell one, else 0: 1/3, 2/3, 1 for
    slightly, clearly, by far better, the small margins of Llama 2 (Touvron et al. 2023, table 27). Pairs that no reward
    model could learn from (an empty answer, or two equal ones) are left out, and counted.
    """
    asked, planted = split(labels)
    counts: Counter[str] = Counter()
    preferences: list[Row] = []
    for _, group in groupby(sorted(asked, key=lambda label: (label.pair.id, label.at)), key=lambda one: one.pair.id):
        for behind, of in _rows_behind(list(group), merge, counts):
            if _usable(behind[0]):
                preferences.append(_preference(behind, of))
            else:
                counts["unusable"] += 1
    _plain_prompts(preferences)
    verdicts = Counter(label.verdict for label in asked)
    summary = {
        "rows": len(preferences),
        "merge": merge,
        "ties": verdicts["tie"],
        "both_bad": verdicts["both_bad"],
        "skips": verdicts["skip"],
        **{name: counts[name] for name in ("overruled", "without_majority", "unusable")},
        "planted": len(planted),
        "quality": quality(labels),
    }
    return Export(preferences, [_label(label) for label in labels], summary)


def write(found: Export, path: Path) -> None:
    """Write the three files, each whole or not at all.

    Raises:
        CollectError: there is no such folder.
    """
    if path.suffix != ".jsonl":
        raise CollectError(f"--to {path}: the file's name must end in .jsonl")
    if not path.parent.is_dir():
        raise CollectError(f"--to {path}: there is no folder {path.parent}")
    write_atomically(path, _lines(found.preferences))
    write_atomically(path.with_suffix(LABELS), _lines(found.labels))
    write_atomically(path.with_suffix(SUMMARY), json.dumps(found.summary, ensure_ascii=False, indent=1) + "\n")


def default_path(run: Path) -> Path:
    """Where a run's export goes; a judge of kind human looks for its labels beside it."""
    return labels_path(run).with_name(PREFERENCES)


def refresh(run: Path) -> None:
    """Write the labels so far, where there are any, for judges of kind human; pairs to train on stay as they are."""
    if labels_path(run).is_file():
        rows = [_label(label) for label in labels_of(run)]
        write_atomically(default_path(run).with_suffix(LABELS), _lines(rows))


def _rows_behind(labels: list[Label], merge: Merge, counts: Counter[str]) -> list[tuple[list[Label], int]]:
    """Of one pair, the labels behind each row, all for the same side, and how many votes there were."""
    settled = [label for label in labels if label.annotator == ADJUDICATOR and label.verdict != "skip"]
    if settled:
        counts["overruled"] += sum(label.verdict not in ("skip", settled[0].verdict) for label in labels)
        labels = settled
    votes = [label for label in labels if label.verdict != "skip"]
    if merge == "all":
        return [([label], 1) for label in votes if label.verdict in ("a", "b")]
    for side in ("a", "b"):
        behind = [label for label in votes if label.verdict == side]
        if 2 * len(behind) > len(votes):
            return [(behind, len(votes))]
    counts["without_majority"] += bool(votes)
    return []


def _usable(label: Label) -> bool:
    a, b = label.pair.a.text.strip(), label.pair.b.text.strip()
    return bool(a) and bool(b) and a != b


def _preference(behind: Sequence[Label], votes: int) -> Row:
    pair, side = behind[0].pair, behind[0].verdict
    chosen, rejected = (pair.a, pair.b) if side == "a" else (pair.b, pair.a)
    strengths = [label.strength for label in behind if label.strength is not None]
    return {
        "prompt": [dict(message) for message in pair.prompt],
        "chosen": chosen.text,
        "rejected": rejected.text,
        "margin": sum(strengths) / len(strengths) / max(STRENGTHS) if strengths else 0.0,
        "chosen_source": chosen.source,
        "rejected_source": rejected.source,
        "pair": pair.id,
        "annotator": ", ".join(label.annotator for label in behind),
        "votes": len(behind),
        "of": votes,
        "chosen_first": sum(label.first == side for label in behind) / len(behind),
        "seconds": median(label.seconds for label in behind),
        "at": max(label.at for label in behind),
        "reasons": sorted({reason for label in behind for reason in label.reasons}),
    }


def _plain_prompts(rows: list[Row]) -> None:
    """Prompts as texts where all of them are one user turn; one column never mixes texts and lists."""
    if all(len(row["prompt"]) == 1 for row in rows):
        for row in rows:
            row["prompt"] = row["prompt"][0]["content"]


def _label(label: Label) -> Row:
    pair = label.pair
    return {
        "prompt": [dict(message) for message in pair.prompt],
        "a": pair.a.text,
        "b": pair.b.text,
        "verdict": label.verdict,
        "strength": label.strength,
        "a_source": pair.a.source,
        "b_source": pair.b.source,
        "pair": pair.id,
        "annotator": label.annotator,
        "settles": label.annotator == ADJUDICATOR,
        "first": label.first,
        "seconds": label.seconds,
        "at": label.at,
        "reasons": list(label.reasons),
        "expected": pair.expected,
    }


def _lines(rows: Sequence[Row]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
