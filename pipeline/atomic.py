"""Files and folders that are there whole or not at all."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path


def write_atomically(path: Path, text: str) -> None:
    """Write beside `path`, flush to disk, then rename: readers see the old file or the whole new one."""
    with file_atomically(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


@contextlib.contextmanager
def file_atomically(path: Path) -> Iterator[Path]:
    """A hidden file beside `path` to write; flushed to disk, it takes the place of whatever is there."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    yield temporary
    _flush(temporary)
    os.replace(temporary, path)


def _flush(file: Path) -> None:
    with open(file, "rb") as opened:
        os.fsync(opened.fileno())


def sync_folder(path: Path) -> None:
    """Flush a folder's list of names to disk, where the system can."""
    with contextlib.suppress(OSError):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


@contextlib.contextmanager
def folder_atomically(path: Path) -> Iterator[Path]:
    """A hidden folder beside `path` to fill; flushed to disk, it takes the place of whatever is there. After an error
    it is removed, and what was there stays."""
    hidden = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    old = path.with_name(f".{path.name}.{os.getpid()}.old")
    shutil.rmtree(hidden, ignore_errors=True)
    hidden.mkdir(parents=True)
    try:
        yield hidden
        for file in hidden.rglob("*"):
            if file.is_file():
                _flush(file)
        if path.exists():
            os.replace(path, old)
        os.replace(hidden, path)
        sync_folder(path.parent)
    except BaseException:
        if old.exists() and not path.exists():
            os.replace(old, path)
        raise
    finally:
        shutil.rmtree(hidden, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)
