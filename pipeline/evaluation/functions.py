"""Functions that a config names as "module:function": found, and their source known."""

import importlib
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any


class FunctionError(ValueError):
    """A function that can't be had; the message names it."""


def load_function(place: str, folders: Sequence[str | Path] = ()) -> Callable[..., Any]:
    """The function at "module:function". The working directory and `folders` are searched after the Python path, and
    only for this.

    Raises:
        FunctionError: there is no such module or function, or importing it fails.
    """
    module, _, path = place.partition(":")
    extra = [folder for folder in dict.fromkeys(map(str, (Path.cwd(), *folders))) if folder not in sys.path]
    sys.path.extend(extra)
    try:
        found = importlib.import_module(module)
        for name in path.split("."):
            found = getattr(found, name)
    except Exception as error:
        raise FunctionError(f"{place} can't be imported: {type(error).__name__}: {error}") from error
    finally:
        for folder in extra:
            sys.path.remove(folder)
    if not callable(found):
        raise FunctionError(f"{place} is {type(found).__name__}, not a function")
    return found


def function_source(place: str, folders: Sequence[str | Path] = ()) -> Path | None:
    """The file of the module at "module:function", None where it has none.

    Raises:
        FunctionError: as `load_function`.
    """
    load_function(place, folders)
    file = getattr(sys.modules[place.partition(":")[0]], "__file__", None)
    return None if file is None else Path(file)
