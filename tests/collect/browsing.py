"""A server in a process of its own, and what a person does in a browser."""

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.collect.records import Label
from pipeline.collect.store import ADJUDICATOR, Store, labels_path

PATIENCE = 60_000  # milliseconds: the machine may be busy


class Server:
    """`align collect serve RUN …`, with everybody's address."""

    def __init__(self, run: Path, *arguments: str, port: int = 0) -> None:
        self.run, self.arguments = run, arguments
        self.start(port)

    def start(self, port: int) -> None:
        command = [sys.executable, "-m", "pipeline.cli", "collect", "serve", str(self.run), "--port", str(port)]
        self.process = subprocess.Popen(
            [*command, *self.arguments], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        assert self.process.stdout is not None
        self.addresses: dict[str, str] = {}
        while ADJUDICATOR not in self.addresses:
            name, address = self.process.stdout.readline().rsplit(maxsplit=1)
            self.addresses[name.strip()] = address
        self.base = self.addresses[ADJUDICATOR].rsplit("/join", 1)[0]
        self.port = int(self.base.rsplit(":", 1)[1])

    def kill(self) -> None:
        """As a power cut would, without a word."""
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def labels(self) -> list[Label]:
        store = Store(labels_path(self.run))
        try:
            return store.labels()
        finally:
            store.close()


class Person:
    """An annotator at a page."""

    def __init__(self, page: Any) -> None:
        self.page = page
        page.set_default_timeout(PATIENCE)
        self.complaints: list[str] = []
        self.requests: list[str] = []
        page.on("console", lambda message: self.complaints.append(message.text))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", lambda request: self.requests.append(request.url))

    def open(self, address: str) -> "Person":
        self.page.goto(address)
        self.wait()
        return self

    def wait(self) -> None:
        """Until the page is ready for the next key."""
        self.page.wait_for_selector("[data-choice=undo][aria-disabled=false]", state="attached")

    def press(self, key: str) -> None:
        self.page.keyboard.press(key)
        self.wait()

    def answers(self) -> list[str]:
        return [one.inner_text() for one in self.page.query_selector_all(".answer .said")]

    def finished(self) -> bool:
        return bool(self.page.is_visible("#done"))

    def says(self, selector: str) -> str:
        return str(self.page.inner_text(selector))


def shown(label: Label) -> list[str]:
    """A labelled pair's answers, by place."""
    sides: Sequence[str] = (label.pair.a.text, label.pair.b.text)
    return list(sides if label.first == "a" else reversed(sides))
