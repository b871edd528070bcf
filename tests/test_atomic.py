"""Files and folders that are there whole or not at all."""

import os
from pathlib import Path

import pytest

from pipeline.atomic import folder_atomically


def names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def test_a_folder_appears_whole_and_replaces_the_old_one(tmp_path: Path) -> None:
    place = tmp_path / "deep" / "place"
    for text in ("one", "two"):
        with folder_atomically(place) as hidden:
            (hidden / text).write_text(text)
            assert not (place / text).exists()
        assert names(tmp_path) == {"deep", "deep/place", f"deep/place/{text}"}


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_after_an_error_the_old_one_stays(tmp_path: Path, error: type[BaseException]) -> None:
    (tmp_path / "place").mkdir()
    (tmp_path / "place" / "old").touch()

    def fill() -> None:
        with folder_atomically(tmp_path / "place") as hidden:
            (hidden / "new").touch()
            raise error

    with pytest.raises(error):
        fill()
    assert names(tmp_path) == {"place", "place/old"}


def test_a_rename_that_fails_costs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The old folder is aside already when the new one can't take its place."""
    (tmp_path / "place").mkdir()
    (tmp_path / "place" / "old").touch()
    replace = os.replace

    def refuse(source: Path, target: Path) -> None:
        if source.name.endswith(".tmp"):
            raise OSError("no")
        replace(source, target)

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(OSError, match="no"), folder_atomically(tmp_path / "place") as hidden:
        (hidden / "new").touch()
    assert names(tmp_path) == {"place", "place/old"}
