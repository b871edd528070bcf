"""How many answers a second `align collect` keeps, and how long each waits to be on disk.

    python scripts/bench_collect.py
    python scripts/bench_collect.py --rate 400 --seconds 20 --json

The server runs in a process of its own, with the page's whole road: cookie, CSRF token, lease, order, flush. As many
simulated annotators as told ask and answer at the rate told, each at moments of its own (open loop: who waits doesn't
spare the server the next one). Then the server is killed by SIGKILL, and the file is counted: an answer that was
acknowledged and isn't there is lost.
"""

import argparse
import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from pipeline.collect.annotators import Doors
from pipeline.collect.app import COOKIE, home_of
from pipeline.collect.records import Answer, Pair
from pipeline.collect.store import Store, labels_path

SERVER = """
import sys
from pathlib import Path
from pipeline.collect.plan import Plan
from pipeline.collect.serving import Sitting
from pipeline.collect.store import Store, labels_path
run, names, overlap, token = Path(sys.argv[1]), sys.argv[2].split(","), float(sys.argv[3]), sys.argv[4]
sitting = Sitting(run, Store(labels_path(run)).pairs(), Plan(names, overlap=overlap), token=token)
print(sitting.port, flush=True)
sitting.serve()
"""
TOKEN = "bench-collect-token"


@dataclass
class Measured:
    """Seconds from sending an answer to its acknowledgement, and the views that were acknowledged."""

    waits: list[float] = field(default_factory=list)
    acknowledged: list[str] = field(default_factory=list)
    unanswered: int = 0  # moments at which somebody was still waiting for the last reply


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--annotators", type=int, default=200)
    parser.add_argument("--rate", type=float, default=200.0, help="answers a second, of all together")
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--overlap", type=float, default=0.02, help="share of pairs that everybody is asked")
    parser.add_argument("--json", action="store_true", help="one JSON object on one line")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = measure(Path(folder), arguments)
    if arguments.json:
        print(json.dumps(found))
        return
    print(
        f"{found['answers']} answers of {found['annotators']} annotators in {found['seconds']} s, {found['rate']}/s: "
        f"p50 {found['p50_ms']} ms, p99 {found['p99_ms']} ms, max {found['max_ms']} ms, {found['lost']} lost; "
        f"{found['server_cpu_ms']} ms of processor each, load {found['load']} on {found['cores']} cores"
    )


def measure(run: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """The figures, once the killed server's file was read again."""
    names = [f"annotator-{number}" for number in range(arguments.annotators)]
    store = Store(labels_path(run))
    store.add_pairs(pairs(round(arguments.rate * arguments.seconds * 1.5)))
    command = [sys.executable, "-c", SERVER, str(run), ",".join(names), str(arguments.overlap), TOKEN]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    try:
        port = int(server.stdout.readline())
        measured, process = Measured(), psutil.Process(server.pid)
        before = sum(process.cpu_times()[:2])
        start = time.perf_counter()
        asyncio.run(crowd(port, names, arguments.rate, arguments.seconds, measured))
        took = time.perf_counter() - start
        spent = sum(process.cpu_times()[:2]) - before
    finally:
        os.kill(server.pid, signal.SIGKILL)
        server.wait()
    kept = {event["view"] for event in Store(store.path).events()}
    waits = np.array(measured.waits) * 1000
    return {
        "annotators": len(names),
        "answers": len(waits),
        "seconds": round(took, 1),
        "rate": round(len(waits) / took, 1),
        "p50_ms": round(float(np.percentile(waits, 50)), 1),
        "p99_ms": round(float(np.percentile(waits, 99)), 1),
        "max_ms": round(float(waits.max()), 1),
        "server_cpu_ms": round(1000 * spent / len(waits), 2),  # an answer, joining among it
        "load": round(os.getloadavg()[0], 1),
        "cores": os.cpu_count(),
        "still_waiting": measured.unanswered,
        "lost": len(set(measured.acknowledged) - kept),
    }


def pairs(count: int) -> list[Pair]:
    """With answers of about a hundred words."""
    words = "an answer of some length, as a small model would give it, " * 8
    return [
        Pair(
            f"pair-{number}",
            ({"role": "user", "content": f"Question {number}?"},),
            Answer(f"{number}, first: {words}", "sft"),
            Answer(f"{number}, second: {words}", "policy"),
        )
        for number in range(count)
    ]


async def crowd(port: int, names: list[str], rate: float, seconds: float, measured: Measured) -> None:
    """Everybody joins, then answers once every len(names)/rate seconds, evenly spread."""
    doors = Doors(TOKEN, names)
    people = [Person(port, name, doors) for name in names]
    await asyncio.gather(*(person.join() for person in people))
    every, start = len(names) / rate, time.perf_counter() + 0.1
    moments = [start + every * index / len(names) for index in range(len(names))]
    await asyncio.gather(
        *(person.work(first, every, start + seconds, measured) for person, first in zip(people, moments, strict=True))
    )


class Person:
    """One simulated annotator: a connection that is kept open, and the question at hand."""

    def __init__(self, port: int, name: str, doors: Doors) -> None:
        self.port, self.home = port, home_of(name)
        origin = f"http://127.0.0.1:{port}"
        self.headers = (
            f"Host: 127.0.0.1:{port}\r\nOrigin: {origin}\r\nCookie: {COOKIE}={doors.token(name)}\r\n"
            f"X-CSRF-Token: {doors.csrf(name)}\r\nContent-Type: application/json\r\n"
        )

    async def join(self) -> None:
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.port)
        self.turn = await self.post("next", {"tab": "t"})

    async def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        data = json.dumps(body).encode()
        head = f"POST {self.home}{path} HTTP/1.1\r\n{self.headers}Content-Length: {len(data)}\r\n\r\n"
        self.writer.write(head.encode() + data)
        told = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        length = re.search(r"content-length: (\d+)", told, re.IGNORECASE)
        assert told.startswith("HTTP/1.1 200"), told
        assert length is not None
        reply: dict[str, Any] = json.loads(await self.reader.readexactly(int(length[1])))
        return reply

    async def work(self, first: float, every: float, end: float, measured: Measured) -> None:
        moment = first
        while moment < end and self.turn["question"] is not None:
            await asyncio.sleep(max(0.0, moment - time.perf_counter()))
            view = self.turn["question"]["view"]
            body = {"tab": "t", "view": view, "choice": "first", "seconds": every, "reasons": ["style"]}
            self.turn = await self.post("answer", body)
            # From the moment it was due: a late start is the server's lateness, too.
            measured.waits.append(time.perf_counter() - moment)
            measured.acknowledged.append(view)
            moment += every
            measured.unanswered += moment < time.perf_counter()


if __name__ == "__main__":
    main()
