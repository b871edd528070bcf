"""Replies that were asked for once: a file of JSON lines that only grows."""

import errno
import hashlib
import json
import os
import threading
from dataclasses import asdict
from pathlib import Path

from pipeline.evaluation.judges.endpoint import Reply
from pipeline.evaluation.judges.protocol import JudgeError


def reply_key(base_url: str, model: str, text: str, options: dict[str, float | int | None]) -> str:
    """SHA-256 of all that decides a reply: whom, where, the whole message, temperature and the longest reply."""
    asked = json.dumps([base_url, model, text, sorted(options.items())], ensure_ascii=True)
    return hashlib.sha256(asked.encode()).hexdigest()


class Replies:
    """Replies by their key, on disk as soon as they are there.

    Each is one line, written in one piece and flushed to disk, so that several processes may share the file. What a
    kill cut off in the middle is a line that can't be read: it counts as never asked. Raises JudgeError where the file
    can't be opened.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._known: dict[str, Reply] = {}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(path, "a+b") as file:
                file.seek(0)
                content = file.read()
        except OSError as error:
            raise JudgeError(f"the file of replies {path} can't be opened: {error.strerror}") from None
        self._torn = bool(content) and not content.endswith(b"\n")
        for line in content.splitlines():
            self._take(line)

    def _take(self, line: bytes) -> None:
        try:
            row = json.loads(line)
            key, reply = str(row.pop("key")), Reply(**row)
        except (ValueError, TypeError, KeyError, AttributeError):
            return
        if isinstance(reply.text, str):
            self._known[key] = reply

    def __contains__(self, key: str) -> bool:
        return key in self._known

    def __getitem__(self, key: str) -> Reply:
        return self._known[key]

    def add(self, key: str, reply: Reply) -> None:
        """Keep a reply, on disk first. Raises OSError where the disk is full."""
        line = json.dumps({"key": key, **asdict(reply)}, ensure_ascii=True).encode() + b"\n"
        with self._lock:
            handle = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
            try:
                line = b"\n" + line if self._torn else line
                self._torn = os.write(handle, line) < len(line)
                os.fsync(handle)
            finally:
                os.close(handle)
            if self._torn:
                raise OSError(errno.ENOSPC, f"{self.path} can't be written: {os.strerror(errno.ENOSPC)}")
            self._known[key] = reply
