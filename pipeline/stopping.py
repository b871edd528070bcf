"""Ctrl-C and a scheduler's SIGTERM: the step at hand is finished and kept, then the run ends."""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from pipeline import processes
from pipeline.progress import say

SIGNALS = (signal.SIGINT, signal.SIGTERM)
ECHO = 5.0  # seconds: launchers pass on what the terminal has sent to all processes already
_asked = threading.Event()


def stop_requested() -> bool:
    """Whether somebody has asked the run to end after this step."""
    return _asked.is_set()


@contextmanager
def stopping() -> Iterator[None]:
    """While the block runs, a first signal asks to stop, which `stop_requested` tells; a second one interrupts at once.

    Elsewhere than in the main thread, where Python allows no handlers, nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    first = 0.0

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal first
        if _asked.is_set():
            if processes.launched() == 1 or time.monotonic() - first > ECHO:
                raise KeyboardInterrupt
            return
        first = time.monotonic()
        _asked.set()
        say("stopping after this step, and keeping it; once more to stop at once")

    _asked.clear()
    before = {number: signal.signal(number, handle) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _asked.clear()
