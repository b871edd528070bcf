"""A headless Chromium, driven over its DevTools protocol through a pair of pipes: no port, no library.

https://chromedevtools.github.io/devtools-protocol/
"""

import json
import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PROGRAM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
PATIENCE = 60  # seconds for one answer
OPTIONS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"),
    *("--no-first-run", "--disable-background-networking", "--host-resolver-rules=MAP * ~NOTFOUND"),
)
# The browser reads commands from descriptor 3 and answers on 4; by way of 53 and 54, so that neither covers the other.
TO_THREE_AND_FOUR = """
import os, sys
for given, place in zip(map(int, sys.argv[1:3]), (53, 54)):
    os.dup2(given, place)
os.dup2(53, 3), os.dup2(54, 4)
os.execv(sys.argv[3], sys.argv[3:])
"""


class Tab:
    """One tab: it opens files, runs expressions, presses keys, and remembers requests and complaints."""

    def __init__(self, to_browser: int, from_browser: int) -> None:
        self._to, self._from, self._buffer, self._last = to_browser, from_browser, b"", 0
        self._session: dict[str, str] = {}
        self.events: list[dict[str, Any]] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = {"sessionId": self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]}
        for domain in ("Page", "Runtime", "Log", "Network", "Accessibility"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command, and its answer."""
        self._last += 1
        message = {"id": self._last, "method": method, "params": parameters, **self._session}
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while (answer := self._receive()).get("id") != self._last:
            self.events.append(answer)
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']}")
        result: dict[str, Any] = answer["result"]
        return result

    def _receive(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            if not select.select([self._from], [], [], PATIENCE)[0]:
                raise TimeoutError("the browser says nothing")
            part = os.read(self._from, 1 << 16)
            if not part:
                raise EOFError("the browser is gone")
            self._buffer += part
        line, self._buffer = self._buffer.split(b"\0", 1)
        message: dict[str, Any] = json.loads(line)
        return message

    def open(self, path: Path, *, width: int = 1280, media: str = "", scheme: str = "light") -> None:
        """Show a file at a width, on screen unless `media` says print, light or dark. Forgets what happened before."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.call("Emulation.setEmulatedMedia", media=media, features=features)
        self.events.clear()
        self.call("Page.navigate", url=path.as_uri())
        end = time.monotonic() + PATIENCE
        while not any(event["method"] == "Page.loadEventFired" for event in self.events):
            assert time.monotonic() < end, "the page doesn't load"
            self.events.append(self._receive())

    def run(self, script: str) -> Any:
        """The value of an expression of JavaScript; a promise is awaited."""
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def press(self, key: str) -> None:
        """A key, as from a keyboard."""
        codes = {"Tab": 9, "Enter": 13, " ": 32}
        text = {"Enter": "\r", " ": " "}.get(key, "")
        about: dict[str, Any] = {"key": key, "windowsVirtualKeyCode": codes[key]}
        self.call("Input.dispatchKeyEvent", type="keyDown", text=text, **about)
        self.call("Input.dispatchKeyEvent", type="keyUp", **about)

    def requests(self) -> list[str]:
        """Every address asked for since the page was opened, its own and data: ones left out."""
        sent = (event["params"] for event in self.events if event["method"] == "Network.requestWillBeSent")
        return [one["request"]["url"] for one in sent if not one["request"]["url"].startswith(("file:", "data:"))]

    def complaints(self) -> list[Any]:
        """Console messages, violations of the content security policy, and exceptions, since the page was opened."""
        kinds = (
            "Runtime.consoleAPICalled",
            "Runtime.exceptionThrown",
            "Log.entryAdded",
            "Page.javascriptDialogOpening",
        )
        return [event["params"] for event in self.events if event["method"] in kinds]


@contextmanager
def tab(profile: Path) -> Iterator[Tab]:
    """A tab of a fresh browser, which ends with it."""
    assert PROGRAM
    (their_in, our_out), (our_in, their_out) = os.pipe(), os.pipe()
    options = [*OPTIONS, f"--user-data-dir={profile}", "--remote-debugging-pipe", "about:blank"]
    browser = subprocess.Popen(
        [sys.executable, "-c", TO_THREE_AND_FOUR, str(their_in), str(their_out), PROGRAM, *options],
        pass_fds=(their_in, their_out),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(their_in)
    os.close(their_out)
    try:
        yield Tab(our_out, our_in)
    finally:
        os.close(our_out)
        os.close(our_in)
        browser.terminate()
        browser.wait(PATIENCE)
