"""Where pairs come from: the answers that a run's evaluation kept, files of answers, and planted pairs. No model is
loaded."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

from pipeline.collect.errors import CollectError
from pipeline.collect.records import Answer, Pair, Side
from pipeline.data import Preference, load
from pipeline.data.schema import Message
from pipeline.evaluation.alpaca import read_outputs
from pipeline.rundir import RunDir, read_jsonl

VERSUS = "_vs_"


def pair_of(prompt: Sequence[Message], a: Answer, b: Answer, expected: Side | None = None) -> Pair:
    """A pair whose id is a hash of all that it says, so that the same one is asked once however often it is added."""
    said = [list(prompt), [a.text, a.source], [b.text, b.source], expected]
    digest = hashlib.sha256(json.dumps(said, sort_keys=True, ensure_ascii=False).encode("utf-8", "surrogatepass"))
    return Pair(digest.hexdigest()[:16], tuple(prompt), a, b, expected)


def pairs_of_run(path: Path, between: str) -> list[Pair]:
    """Pairs of two systems' answers to a run's held-out prompts, such as "sft_vs_policy"; of one system's first two
    samples where both names are the same. Equal answers are left out.

    Raises:
        RunError: the run has no finished evaluation.
        CollectError: no such system, one sample a prompt where two are needed, or nothing but equal answers.
    """
    first, _, second = between.partition(VERSUS)
    run = RunDir(path)
    run.require("evaluate")
    rows = read_jsonl(path / "evaluate" / "samples.jsonl")
    systems = list(rows[0]["answers"]) if rows else []
    if first not in systems or second not in systems:
        raise CollectError(f"--pair {between}: {path} has answers of {', '.join(systems)}; name two of them as A_vs_B")
    if first == second and not all(row["answers"][first].get("others") for row in rows):
        raise CollectError(
            f"--pair {between} needs two answers to a prompt, and the evaluation of {path} kept one: set "
            "evaluate.samples=2 and repeat it with `align evaluate CONFIG --force`"
        )

    def pairs() -> Iterator[Pair]:
        for row in rows:
            one, other = row["answers"][first], row["answers"][second]
            texts = (one["text"], one["others"][0] if first == second else other["text"])
            yield pair_of(_prompt(row), Answer(texts[0], first), Answer(texts[1], second))

    return _unequal(pairs(), between)


def pairs_of_files(outputs: Path, against: Path) -> list[Pair]:
    """Pairs of the answers in two of AlpacaEval's files to the prompts that both have.

    Raises:
        AlpacaError: a file isn't one of answers.
        CollectError: no prompt stands in both, or all answers are equal.
    """
    theirs = {row.instruction.strip(): row for row in read_outputs(against)}
    both = [(row, theirs[key]) for row in read_outputs(outputs) if (key := row.instruction.strip()) in theirs]
    if not both:
        raise CollectError(f"no instruction stands both in {outputs} and in {against}")
    pairs = (
        pair_of(_asked(one.instruction), Answer(one.output, one.generator), Answer(other.output, other.generator))
        for one, other in both
    )
    return _unequal(pairs, f"{outputs} and {against}")


def checks_of(path: Path) -> list[Pair]:
    """Planted pairs, whose better answer nobody can miss, from any file of preferences (docs/data.md).

    Raises:
        DataError: the file isn't one.
    """
    rows = cast(list[Preference], load(str(path), "preferences").rows)
    return [pair_of(row.prompt, Answer(row.chosen, "chosen"), Answer(row.rejected, "rejected"), "a") for row in rows]


def _unequal(pairs: Iterable[Pair], whose: str) -> list[Pair]:
    found = {pair.id: pair for pair in pairs if pair.a.text.strip() != pair.b.text.strip()}
    if not found:
        raise CollectError(f"{whose}: all answers are equal, so there is nothing to compare")
    return list(found.values())


def _prompt(row: dict[str, Any]) -> Sequence[Message]:
    return row["messages"] if "messages" in row else _asked(row["prompt"])


def _asked(text: str) -> Sequence[Message]:
    return ({"role": "user", "content": text},)
