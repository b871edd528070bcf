"""Environments of other packages: Atari games, MinAtar, driving. A package is asked for when its first name is used."""

from importlib import import_module

import gymnasium

from pipeline.agents.errors import AgentError

ATARI = "ALE/"
DRIVING = ("exit", "highway", "intersection", "lane-keeping", "merge", "parking", "racetrack", "roundabout", "u-turn")
# how its environments' names begin: the module that registers them, and what to install
FAMILIES: dict[str, tuple[str, str]] = {
    ATARI: ("ale_py", "ale-py"),
    "MinAtar/": ("pipeline.agents.minatar", "minatar"),
    **{f"{name}-": ("highway_env", "highway-env") for name in DRIVING},
}


def family(name: str) -> tuple[str, str] | None:
    """The module and the package behind a name; None for an environment of gymnasium's own or of this project."""
    return next((packages for begin, packages in FAMILIES.items() if name.startswith(begin)), None)


def screen(name: str) -> str:
    """SDL's driver with which pygame draws pixels without a screen, and without complaining that there is none.

    Driving draws nothing at all where it finds "dummy".
    """
    return "offscreen" if family(name) == FAMILIES["highway-"] else "dummy"


def register(name: str) -> None:
    """Let gymnasium know the environments of the family that `name` belongs to, if it belongs to one.

    Raises:
        AgentError: if the family's package isn't installed.
    """
    behind = family(name)
    if behind is None or name in gymnasium.registry:
        return
    module, package = behind
    try:
        import_module(module)
    except ImportError:
        raise AgentError(
            f"environment {name!r} needs {package}, which isn't installed; pip install 'align-pipeline[landmarks]'"
        ) from None
