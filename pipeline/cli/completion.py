"""What the Tab key offers: config files, run folders, settings (`align --install-completion`)."""

from collections.abc import Iterator
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel

from pipeline.config import Config


def configs(incomplete: str) -> list[str]:
    """YAML files here, in configs/, and in the folder that is being typed; and folders to go on into."""
    places = [Path("."), Path("configs"), _typed(incomplete)]
    found = [str(path) for place in places for path in sorted(place.glob("*.yaml"))]
    return _matching([*found, *_folders(incomplete)], incomplete)


def runs(incomplete: str) -> list[str]:
    """Run folders in runs/ and in the folder that is being typed; and folders to go on into."""
    places = [Path("runs"), _typed(incomplete)]
    found = [str(path.parent) for place in places for path in sorted(place.glob("*/config.yaml"))]
    return _matching([*found, *_folders(incomplete)], incomplete)


def settings(incomplete: str) -> list[str]:
    """Every setting of a run's config, as `section.key=`."""
    return _matching([f"{key}=" for key in keys(Config)], incomplete)


def keys(section: type[BaseModel]) -> Iterator[str]:
    """Dotted keys of a section and of those inside it."""
    for name, field in section.model_fields.items():
        inner = _section(field.annotation)
        yield from [name] if inner is None else (f"{name}.{key}" for key in keys(inner))


def _section(annotation: Any) -> type[BaseModel] | None:
    """The section that a field holds, perhaps or always; None for other values, tables of sections among them."""
    options = get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)
    sections = [one for one in options if isinstance(one, type) and issubclass(one, BaseModel)]
    return sections[0] if len(sections) == 1 else None


def _typed(incomplete: str) -> Path:
    """The folder of a path that is being typed."""
    return Path(incomplete) if incomplete.endswith("/") else Path(incomplete).parent


def _folders(incomplete: str) -> list[str]:
    """Folders inside the one that is being typed; none before a slash was."""
    if "/" not in incomplete:
        return []
    return [f"{path}/" for path in sorted(_typed(incomplete).glob("*/")) if not path.name.startswith(".")]


def _matching(found: list[str], incomplete: str) -> list[str]:
    return [text for text in dict.fromkeys(found) if text.startswith(incomplete)]
