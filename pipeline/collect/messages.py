"""What the page says, in any language: one JSON file of sentences each, English where one is missing."""

import json
from pathlib import Path

from pipeline.collect.errors import CollectError

FOLDER = Path(__file__).parent / "page" / "messages"


def languages() -> list[str]:
    """Those that come along."""
    return sorted(path.stem for path in FOLDER.glob("*.json"))


def load_messages(language: str = "en", file: Path | None = None) -> dict[str, str]:
    """All sentences by key: a file of one's own over the language over English.

    Raises:
        CollectError: no such language, or a file that isn't a JSON object of texts with known keys.
    """
    if language not in languages():
        raise CollectError(f"--language {language}: there are {', '.join(languages())}; --messages FILE brings another")
    english = _read(FOLDER / "en.json")
    found = english | _read(FOLDER / f"{language}.json")
    if file is not None:
        own = _read(file)
        if unknown := sorted(own.keys() - english.keys()):
            raise CollectError(
                f"--messages {file}: no message is called {', '.join(unknown)}; see {FOLDER / 'en.json'}"
            )
        found |= own
    return found


def _read(path: Path) -> dict[str, str]:
    try:
        found = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise CollectError(f"{path} can't be read: {error}") from None
    if not isinstance(found, dict) or not all(isinstance(text, str) for text in found.values()):
        raise CollectError(f"{path} must hold one JSON object of texts, as {FOLDER / 'en.json'} does")
    return found
