"""Several configs from one file: overrides that give a key several values."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, get_args, get_origin

from pydantic import BaseModel

from pipeline.config.reading import ConfigError, apply_overrides, is_file, load_config
from pipeline.config.sections import Config

UNFIT = r"[^\w.+-]+"  # signs that a folder's name had better not hold


@dataclass(frozen=True)
class Point:
    """One combination: its settings, its name as a folder, and its whole config, whose run lies in that folder."""

    settings: Mapping[str, Any]
    name: str
    config: Config


@dataclass(frozen=True)
class Grid:
    """Every combination of the values in `axes`, each a run in a folder of `root`."""

    root: Path
    axes: Mapping[str, Sequence[Any]]
    points: Sequence[Point]


def load_grid(path: str | Path, overrides: Iterable[str]) -> Grid:
    """Read a config once for each combination of the overrides whose key takes a single value and that name a list.

    Raises:
        ConfigError: no override does, one repeats a value or is empty, or a combination isn't valid.
    """
    plain, axes = split_overrides(overrides)
    if not axes:
        raise ConfigError("nothing varies: give a key several values, such as 'policy.kl_coef=[0.02,0.05,0.2]'")
    points: list[Point] = []
    root = ""
    for values in product(*axes.values()):
        settings = dict(zip(axes, values, strict=True))
        chosen = [*plain, *(f"{key}={_text(value)}" for key, value in settings.items())]
        root = root or str(load_config(path, chosen).run_dir)
        name = folder(settings)
        if any(point.name == name for point in points):
            raise ConfigError(f"two runs would share the folder {name!r}: their values differ in signs it can't hold")
        points.append(Point(settings, name, load_config(path, [*chosen, f"run_dir={_text(f'{root}/{name}')}"])))
    return Grid(Path(root), axes, points)


def split_overrides(overrides: Iterable[str]) -> tuple[list[str], dict[str, list[Any]]]:
    """Overrides as they are, and those that give a single-valued key a list, by key.

    Raises:
        ConfigError: a list is empty, repeats a value, or stands for `run_dir`, or its key is varied twice.
    """
    plain: list[str] = []
    axes: dict[str, list[Any]] = {}
    for override in overrides:
        if is_file(override):
            plain.append(override)
            continue
        key = override.partition("=")[0]
        value: Any = apply_overrides({}, [override])
        for name in key.split("."):
            value = value[name]
        if not isinstance(value, list) or takes_list(key):
            plain.append(override)
            continue
        texts = [_text(one) for one in value]
        if not value or len(set(texts)) < len(texts):
            raise ConfigError(f"{override!r}: give different values, at least one")
        if key == "run_dir" or key in axes:
            raise ConfigError(f"{override!r}: {'the runs get folders by themselves' if key == 'run_dir' else 'twice'}")
        axes[key] = value
    return plain, axes


def takes_list(key: str) -> bool:
    """Whether a list is one value of the setting, as for `gates.skip`, and not several."""
    model: Any = Config
    *path, last = key.split(".")
    for name in path:
        options = _options(model, name)
        model = next((one for one in options if isinstance(one, type) and issubclass(one, BaseModel)), None)
        if model is None:
            return False
    return any(get_origin(one) is list for one in _options(model, last))


def _options(model: Any, name: str) -> list[Any]:
    """What a field of a section may hold; nothing for an unknown one."""
    annotation = model.model_fields[name].annotation if name in model.model_fields else None
    return [annotation, *get_args(annotation)]


def folder(settings: Mapping[str, Any]) -> str:
    """`policy.kl_coef=0.05,policy.algorithm=rloo`; what a folder's name can't hold becomes an underscore."""
    return ",".join(f"{key}={re.sub(UNFIT, '_', label(value))}" for key, value in settings.items())


def label(value: Any) -> str:
    """A value as people write it."""
    return value if isinstance(value, str) else _text(value)


def _text(value: Any) -> str:
    """A value as YAML reads it back."""
    return json.dumps(value, ensure_ascii=False, default=str)
