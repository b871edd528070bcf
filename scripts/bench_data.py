"""How long `align data` takes on many rows.

    python scripts/bench_data.py
    python scripts/bench_data.py --rows 1000000 model.name=FOLDER

Writes preference pairs of words with the frequencies of language (Zipf), a hundredth of the prompts said before with a
word changed, and prints the seconds of the whole command and what it found. The fewer words there are, the more prompts
have some in common, and the longer comparing them takes.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from itertools import accumulate
from pathlib import Path

CONFIG = "configs/quickstart.yaml"
REPEATED = 0.01  # share of prompts that are an earlier one with a word changed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overrides", nargs="*", help="KEY=VALUE, as for `align data`")
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--words", type=int, default=20_000, help="size of the vocabulary")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "pairs.jsonl"
        write(file, arguments.rows, arguments.words)
        settings = [f"reward.data.source={file}", f"run_dir={folder}/run", *arguments.overrides]
        start = time.perf_counter()
        command = [sys.executable, "-m", "pipeline.cli", "data", CONFIG, "--json", *settings]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        seconds = time.perf_counter() - start
    found = json.loads(done.stdout.splitlines()[-1])["reward"]
    print(f"{arguments.rows:,} rows, {seconds:.1f} s, {found['near_duplicate_prompts']:,} prompts nearly the same")


def write(file: Path, rows: int, vocabulary: int) -> None:
    """The pairs, as JSON lines."""
    rng = random.Random(0)
    words = [f"w{index:x}" for index in range(vocabulary)]
    weights = list(accumulate(1 / rank for rank in range(1, vocabulary + 1)))

    def text(low: int, high: int) -> list[str]:
        return rng.choices(words, cum_weights=weights, k=rng.randint(low, high))

    prompts: list[list[str]] = []
    with file.open("w", encoding="utf-8") as out:
        for _ in range(rows):
            if prompts and rng.random() < REPEATED:
                prompt = list(rng.choice(prompts))
                prompt[rng.randrange(len(prompt))] = rng.choice(words)
            else:
                prompt = text(12, 40)
            prompts.append(prompt)
            row = {"prompt": prompt, "chosen": text(20, 120), "rejected": text(20, 120)}
            out.write(json.dumps({key: " ".join(value) for key, value in row.items()}) + "\n")


if __name__ == "__main__":
    main()
