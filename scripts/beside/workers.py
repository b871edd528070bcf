"""Processes that load once and work an iteration whenever they are told to, so that none works beside another."""

import json
import os
import statistics
import subprocess
from collections.abc import Sequence
from typing import Any

from pipeline.progress import Bar


class Worker:
    """A process that answers every line on its standard input with a line of JSON, the first one when it has loaded."""

    def __init__(self, name: str, command: Sequence[str], environment: dict[str, str]) -> None:
        self.name = name
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=None if os.environ.get("VERBOSE") else subprocess.DEVNULL,
            text=True,
            env=os.environ | environment,
        )

    def answer(self) -> dict[str, Any]:
        """The next line of what it says."""
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.name} died with exit code {self._process.wait()}; run with VERBOSE=1 to see why")
        return json.loads(line)  # type: ignore[no-any-return]

    def ask(self, word: str) -> dict[str, Any]:
        """Say a word, wait for the answer."""
        assert self._process.stdin
        self._process.stdin.write(word + "\n")
        self._process.stdin.flush()
        return self.answer()

    def stop(self) -> dict[str, Any]:
        """Its last answer: the peaks of its memory."""
        peaks = self.ask("stop")
        self._process.wait()
        return peaks


def in_turns(workers: Sequence[Worker], iterations: int, progress: Bar) -> dict[str, Any]:
    """Medians over the measured iterations of each worker, after one to warm up, by name."""
    for worker in workers:
        worker.answer()  # loaded; nobody loads while another one works
    rows: dict[str, list[dict[str, Any]]] = {worker.name: [] for worker in workers}
    for iteration in range(iterations + 1):
        for worker in workers:
            row = worker.ask("go")
            if iteration > 0:
                rows[worker.name].append(row)
            progress.advance(figures={"seconds": round(row["total"], 2)})
    results = {}
    for worker in workers:
        measured = rows[worker.name]
        middle = {key: statistics.median(row.get(key, 0.0) for row in measured) for key in measured[0]}
        results[worker.name] = {"median": middle, "memory": worker.stop(), "iterations": measured}
    return results
