"""Ctrl-C and a scheduler's SIGTERM: the step at hand is finished and kept, then the run ends."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from pipeline.progress import say

SIGNALS = (signal.SIGINT, signal.SIGTERM)
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

    def handle(number: int, frame: FrameType | None) -> None:
        if _asked.is_set():
            raise KeyboardInterrupt
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
