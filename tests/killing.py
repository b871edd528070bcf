"""Run `align` in processes that are killed at random moments, until one comes to its end.

    python -m tests.killing SEED KILLS ARGUMENTS…

Every process may write a random number of checkpoints, from none to four, and is then killed within a random part of
a step, which may be while it writes the next one; now and then its newest checkpoint is spoilt besides. Prints one JSON
list: of every kill, where the run was. Children are forked from a process that has imported everything, so that they
are killed at work and not while they start.
"""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import pipeline.report.html
import pipeline.stages.chain  # noqa: F401
from pipeline.cli import main
from pipeline.rundir import STAGES

STEP = 0.06  # seconds that a step may take, about
SPOILT = 0.15  # share of the kills after which a checkpoint is damaged


def where(run: Path) -> str:
    """The stage that a run is in and its latest checkpoint, "." before one that is being written."""
    for stage in STAGES:
        if not (run / stage / "result.json").is_file():
            names = [path.name for path in (run / stage / "checkpoints").glob("*")]
            return f"{stage}, {max(names, key=lambda name: name.lstrip('.')) if names else 'no checkpoint'}"
    return "report"


def spoil(run: Path, rng: random.Random) -> bool:
    """Flip one bit somewhere in the newest checkpoint of a stage under way, where there is another one before it."""
    whole = sorted(path for path in run.glob("*/checkpoints/[0-9]*") if not (path.parents[1] / "result.json").is_file())
    if len(whole) < 2:
        return False
    part = rng.choice(["state.json", "state.safetensors"])
    with open(whole[-1] / part, "r+b") as file:
        place = rng.randrange(os.path.getsize(whole[-1] / part))
        file.seek(place)
        (byte,) = file.read(1)
        file.seek(place)
        file.write(bytes([byte ^ 1 << rng.randrange(8)]))
    return True


def start(arguments: list[str]) -> int:
    """The process id of a child that runs `align`."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        main(arguments)
        code = 0
    except SystemExit as stop:
        code = int(stop.code or 0)
    finally:
        sys.stderr.flush()
        os._exit(code)


def ended(child: int) -> bool:
    """Whether a child has come to its end.

    Raises:
        SystemExit: it failed.
    """
    done, status = os.waitpid(child, os.WNOHANG)
    if done and status:
        sys.exit(f"ended with status {os.waitstatus_to_exitcode(status)}")
    return bool(done)


def run(seed: int, kills: int, arguments: list[str]) -> list[str]:
    """Kill `kills` times, unless the last stage is done before; then let it end."""
    rng = random.Random(seed)
    folder = Path(next(part for part in arguments if part.startswith("run_dir=")).removeprefix("run_dir="))
    told: list[str] = []
    while True:
        child, seen, left = start(arguments), where(folder), rng.randint(0, 4)
        last = len(told) == kills
        while last or left > 0:
            if ended(child):
                return told
            now = where(folder)
            left -= now != seen and "., " not in now
            seen = now
            time.sleep(0.001)
        time.sleep(rng.uniform(0, STEP if seen != "report" else 1.0))
        if ended(child):
            return told
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        at = where(folder)
        told.append(at + ", spoilt" if rng.random() < SPOILT and spoil(folder, rng) else at)


if __name__ == "__main__":
    print(json.dumps(run(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])))
