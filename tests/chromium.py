"""A headless Chromium, where there is one, and a tab that remembers what its page asked for and complained of."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

PROGRAM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
OPTIONS = ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--hide-scrollbars"]
# https://chromedevtools.github.io/devtools-protocol/
REQUEST = "Network.requestWillBeSent"
COMPLAINTS = (
    *("Runtime.consoleAPICalled", "Runtime.exceptionThrown"),
    *("Log.entryAdded", "Page.javascriptDialogOpening"),
)


class Tab:
    """One tab: it opens files, runs expressions, presses keys, and remembers requests and complaints."""

    def __init__(self, page: Any) -> None:
        self._page, self._session = page, page.context.new_cdp_session(page)
        self._events: list[tuple[str, dict[str, Any]]] = []
        for domain in ("Page", "Runtime", "Log", "Network", "Accessibility"):
            self.call(f"{domain}.enable")
        for kind in (REQUEST, *COMPLAINTS):
            self._session.on(kind, lambda about, kind=kind: self._events.append((kind, about)))

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """A command of the DevTools protocol, and its answer."""
        answer: dict[str, Any] = self._session.send(method, parameters)
        return answer

    def open(self, path: Path, *, width: int = 1280, media: str = "screen", scheme: str = "light") -> None:
        """Show a file at a width, on screen or in print, light or dark. Forgets what happened before."""
        self._page.set_viewport_size({"width": width, "height": 900})
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.call("Emulation.setEmulatedMedia", media=media, features=features)
        self._events.clear()
        self._page.goto(path.as_uri())

    def run(self, script: str) -> Any:
        """The value of an expression of JavaScript; a promise is awaited."""
        return self._page.evaluate(script)

    def press(self, key: str) -> None:
        """A key, as from a keyboard."""
        self._page.keyboard.press(key)

    def requests(self) -> list[str]:
        """Every address asked for since the page was opened, its own and data: ones left out."""
        sent = [about["request"]["url"] for kind, about in self._events if kind == REQUEST]
        return [address for address in sent if not address.startswith(("file:", "data:"))]

    def complaints(self) -> list[Any]:
        """Console messages, violations of the content security policy, and exceptions, since the page was opened."""
        return [about for kind, about in self._events if kind in COMPLAINTS]


@contextmanager
def chromium() -> Iterator[Any]:
    """A fresh browser, which ends with the block; tests skip where there is none."""
    driver = pytest.importorskip("playwright.sync_api", reason="playwright isn't installed")
    if PROGRAM is None:
        pytest.skip("no chromium, google-chrome or chrome in PATH")
    with driver.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=PROGRAM, args=OPTIONS)
        yield browser
        browser.close()
