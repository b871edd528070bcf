"""The quickstart's own data: complete, apart, and without cues that would let a judge skip reading."""

import hashlib
import json
import re
from collections import Counter, defaultdict
from itertools import pairwise
from pathlib import Path

import pytest

from pipeline.data import leaks, load
from pipeline.data.similar import near_duplicates

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "data" / "quickstart"
LEAST = {"sft": 300, "preferences": 600, "prompts": 400, "dev": 150, "eval": 200}
FIELDS = {
    "sft": {"prompt", "completion", "category"},
    "preferences": {"prompt", "chosen", "rejected", "category", "failure"},
    "prompts": {"prompt", "category"},
    "dev": {"prompt", "category"},
    "eval": {"prompt", "category"},
}
MARKS = ".,!?:;-'\"—()"
MARGIN = 0.05  # every cue must score within 50 ± 5 %


def rows(name: str) -> list[dict[str, str]]:
    lines = (FOLDER / f"{name}.jsonl").read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in lines if line]


def words(text: str) -> list[str]:
    return re.findall(r"[a-z0-9']+", text.lower())


def sentences(text: str) -> int:
    """Stretches that end in . ! or ? (and a closing quote or bracket) before a space."""
    return len([part for part in re.split(r"(?<=[.!?])[\"')]*\s+", text.strip()) if part])


# ---- rows ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LEAST)
def test_there_are_enough_rows_with_exactly_their_fields(name: str) -> None:
    found = rows(name)
    assert len(found) >= LEAST[name]
    assert {frozenset(row) for row in found} == {frozenset(FIELDS[name])}
    assert not [row for row in found for value in row.values() if not value or value != value.strip()]


def test_no_prompt_stands_in_two_files_or_twice_where_it_counts() -> None:
    parts = {name: load(str(FOLDER / f"{name}.jsonl"), "prompts").rows for name in LEAST}
    assert leaks(parts) == []
    for name in ("sft", "prompts", "dev", "eval"):
        keys = Counter(row.key for row in parts[name])
        assert not [key for key, count in keys.items() if count > 1]


def test_no_two_prompts_are_nearly_the_same() -> None:
    """Across all files; pairs of one prompt share it on purpose, so each prompt counts once a file."""
    once = []
    for name in LEAST:
        loaded = load(str(FOLDER / f"{name}.jsonl"), "prompts").rows
        once += list({row.key: row for row in loaded}.values())
    assert near_duplicates(once) == []


def test_good_answers_have_at_most_two_sentences() -> None:
    texts = [row["chosen"] for row in rows("preferences")] + [row["completion"] for row in rows("sft")]
    assert not [text for text in texts if sentences(text) > 2]


def test_the_counting_of_sentences_counts() -> None:
    assert [sentences(text) for text in ("One.", "One. Two!", 'He said "go." Then 2.5 cups?', "a. b. c.")] == [
        1,
        2,
        2,
        3,
    ]


# ---- cues ---------------------------------------------------------------------------------------------------


def cues(text: str) -> Counter[str]:
    """Everything countable that needs no understanding: sizes, marks, words and pairs of words."""
    found = words(text)
    counts = Counter({"characters": len(text), "words in all": len(found), "sentences": sentences(text)})
    counts.update({f"mark {mark}": text.count(mark) for mark in MARKS})
    counts.update({"digits": len(re.findall(r"\d", text)), "capitals": len(re.findall("[A-Z]", text))})
    counts.update(f"word {word}" for word in found)
    counts.update(f"pair {a} {b}" for a, b in pairwise(found))
    counts[f"first word {found[0]}"] += 1
    return counts


def cue_scores(pairs: list[tuple[str, str]]) -> dict[str, float]:
    """How often "choose the answer with more of it" is right for each cue, ties counted half."""
    more: defaultdict[str, int] = defaultdict(int)
    for chosen, rejected in pairs:
        good, bad = cues(chosen), cues(rejected)
        for cue in good | bad:
            more[cue] += (good[cue] > bad[cue]) - (good[cue] < bad[cue])
    return {cue: 0.5 + lead / (2 * len(pairs)) for cue, lead in more.items()}


def test_no_surface_cue_tells_chosen_from_rejected() -> None:
    scores = cue_scores([(row["chosen"], row["rejected"]) for row in rows("preferences")])
    assert {cue: score for cue, score in scores.items() if abs(score - 0.5) > MARGIN} == {}


def test_the_cue_check_finds_a_planted_cue() -> None:
    pairs = [("Short one.", "A rather longer one!"), ("Brief.", "Quite a bit longer, this!")]
    scores = cue_scores(pairs)
    assert (scores["words in all"], scores["mark !"], scores["mark ."]) == (0.0, 0.0, 1.0)
    assert cue_scores([(a, b) for one, two in pairs for a, b in ((one, two), (two, one))])["mark !"] == 0.5


# ---- the README ---------------------------------------------------------------------------------------------


def test_the_readme_names_every_file_with_its_hash() -> None:
    text = (ROOT / "data" / "README.md").read_text(encoding="utf-8")
    listed = {name: digest for digest, name in re.findall(r"`([0-9a-f]{64})`\s+`([^`]+)`", text)}
    for path in sorted(FOLDER.glob("*.jsonl")):
        digests = [digest for name, digest in listed.items() if Path(name).name == path.name]
        assert digests == [hashlib.sha256(path.read_bytes()).hexdigest()], path.name


def test_the_files_are_those_that_are_described() -> None:
    assert {path.stem for path in FOLDER.glob("*.jsonl")} == set(LEAST)
