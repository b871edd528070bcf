"""The configs and the data that come with the project: inside an installed package, or at a checkout's root."""

import shutil
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).parent
FILES = ("configs/*.yaml", "configs/agents/*.yaml", "data/README.md", "data/quickstart/*.jsonl")


class StarterError(ValueError):
    """Files that are in the way."""


def shipped() -> Path:
    """The folder that holds configs/ and data/."""
    inside = PACKAGE / "shipped"
    return inside if inside.is_dir() else PACKAGE.parent


def files() -> Iterator[Path]:
    """Their paths below `shipped()`."""
    root = shipped()
    for pattern in FILES:
        yield from (path.relative_to(root) for path in sorted(root.glob(pattern)))


def copy_into(folder: Path, *, force: bool = False) -> list[Path]:
    """Copy them into `folder`; returns those that weren't there yet, or were others.

    Raises:
        StarterError: a file of the same name and other content is there, and `force` is off; nothing is copied then.
    """
    root = shipped()
    new = [path for path in files() if _differs(root / path, folder / path)]
    taken = [path for path in new if (folder / path).exists()]
    if taken and not force:
        more = f" and {len(taken) - 1} more" if len(taken) > 1 else ""
        raise StarterError(f"{folder / taken[0]}{more} would be overwritten; --force does, or name another folder")
    for path in new:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(root / path, folder / path)
    return new


def _differs(source: Path, target: Path) -> bool:
    return not target.is_file() or source.read_bytes() != target.read_bytes()
