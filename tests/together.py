"""Run `align` in several processes on this machine, as a launcher would, or in one.

    python -m tests.together JOBS

JOBS is a JSON list, done in turn: {"processes": N, "arguments": […]}, and where wanted "pieces": "FSDP" or "DEEPSPEED"
as `distributed_type` of accelerate's config; "signal": S, "to": R, "at": FILE, to send a process a signal as soon as
the file is there; "spoil": RUN, to damage that run's newest checkpoint first. Prints a JSON list: of every job, each
process's exit code (negative: the signal that ended it), what each wrote to standard error, and the seconds that it
took. Children are forked from a process that has imported everything, and draw no report, which would take a third of
the time.
"""

import gc
import json
import os
import random
import signal
import socket
import sys
import tempfile
import time
from importlib import import_module
from pathlib import Path
from typing import Any

import accelerate  # noqa: F401
import torch.distributed.fsdp  # noqa: F401
import transformers.models.llama.modeling_llama  # noqa: F401

import pipeline.stages.chain  # noqa: F401
from pipeline.cli import app
from tests.killing import spoil, start

LIMIT = 600.0  # seconds a job may take


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def surroundings(rank: int, count: int, port: int, pieces: str | None = None) -> dict[str, str]:
    """What a launcher tells its processes; `pieces`: by which library the base is to be shared out."""
    numbers = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count}
    found = {name: str(value) for name, value in numbers.items()}
    switches = {f"ACCELERATE_USE_{name}": str(name == pieces).lower() for name in ("FSDP", "DEEPSPEED")}
    if pieces == "DEEPSPEED":
        switches |= {"ACCELERATE_DEEPSPEED_ZERO_STAGE": "3", "ACCELERATE_DEEPSPEED_OFFLOAD_PARAM_DEVICE": "none"}
    return found | switches | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}


def join(rank: int, count: int, port: int, pieces: str | None = None) -> None:
    """Make this process one of a launcher's. DeepSpeed would build a C++ extension for processes on CPUs that share
    memory; gloo does without."""
    os.environ |= surroundings(rank, count, port, pieces)
    if pieces == "DEEPSPEED":
        import_module("deepspeed.comm.torch").build_shm_op = lambda: None  # type: ignore[attr-defined]


def launch(rank: int, job: dict[str, Any], port: int, told: Path) -> int:
    """The process id of one of a job's processes."""
    before = dict(os.environ)
    if job["processes"] > 1:
        join(rank, job["processes"], port, job.get("pieces"))
    error, file = os.dup(2), os.open(told, os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
    os.dup2(file, 2)
    child = start(job["arguments"])
    os.dup2(error, 2)
    os.close(error)
    os.close(file)
    os.environ.clear()
    os.environ |= before
    return child


def run(job: dict[str, Any], folder: Path) -> dict[str, Any]:
    """One job, to its end."""
    if "spoil" in job and not spoil(Path(job["spoil"]), random.Random(0)):
        sys.exit(f"{job['spoil']} has no two checkpoints, of which one could be damaged")
    told = [folder / f"{rank}.txt" for rank in range(job["processes"])]
    started, port = time.monotonic(), free_port()
    children = [launch(rank, job, port, path) for rank, path in enumerate(told)]
    codes: dict[int, int] = {}
    struck = "signal" not in job
    while len(codes) < len(children):
        if not struck and Path(job["at"]).exists():
            os.kill(children[job["to"]], job["signal"])
            struck = True
        for rank, child in enumerate(children):
            if rank not in codes and (done := os.waitpid(child, os.WNOHANG))[0]:
                codes[rank] = os.waitstatus_to_exitcode(done[1])
            elif rank not in codes and time.monotonic() - started > LIMIT:
                os.kill(child, signal.SIGKILL)
        time.sleep(0.002)
    return {
        "codes": [codes[rank] for rank in range(len(children))],
        "told": [" ".join(path.read_text(encoding="utf-8").split()) for path in told],
        "seconds": round(time.monotonic() - started, 1),
    }


def no_report(folder: Path) -> None:
    print(f"report: {folder}", file=sys.stderr)


if __name__ == "__main__":
    app._write_report = no_report
    gc.collect()
    gc.freeze()  # the libraries' million objects, which every stage's collection would look through again
    with tempfile.TemporaryDirectory() as temporary:
        print(json.dumps([run(job, Path(temporary)) for job in json.loads(sys.argv[1])]))
