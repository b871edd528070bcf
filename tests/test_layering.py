"""Who may import whom. Imports inside functions and under TYPE_CHECKING count too: a hidden cycle is a cycle."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "pipeline"
OWN = (
    "cli",
    "chat",
    "config",
    "rundir",
    "machine",
    "atomic",
    "checkpoints",
    "stopping",
    "processes",
    "gates",
    "terminal",
    "selftest",
    "progress",
    "rl",
    "lm",
    "agents",
    "games",
    "selfplay",
    "data",
    "stages",
    "evaluation",
    "report",
    "deploy",
    "collect",
    "starter",
)
HEAVY = {"torch", "transformers", "peft", "trl", "accelerate", "bitsandbytes", "tokenizers", "safetensors"}

# Parts of `pipeline` that each part may import, besides itself and the package root (its version).
MAY_IMPORT: dict[str, set[str]] = {
    "rl": set(),
    "starter": set(),
    "config": {"starter"},
    "machine": set(),
    "atomic": set(),
    "processes": set(),
    "rundir": {"machine", "atomic", "processes"},
    "progress": {"processes"},
    "stopping": {"progress", "processes"},
    "gates": {"rundir"},
    "checkpoints": {"rundir", "atomic", "progress", "stopping", "processes"},
    "data": {"config", "rundir"},
    "agents": {"rl", "config", "rundir", "progress"},
    "games": set(),
    "selfplay": {"games", "agents", "rl", "config", "rundir", "atomic", "progress", "evaluation"},
    "lm": {"rl", "processes"},
    "evaluation": {"lm", "rl", "data", "atomic", "processes"},
    "stages": {
        "rl",
        "lm",
        "data",
        "evaluation",
        "config",
        "rundir",
        "progress",
        "checkpoints",
        "stopping",
        "gates",
        "machine",
        "atomic",
        "processes",
    },
    "report": {"rundir", "atomic", "gates"},
    "collect": {"config", "rundir", "atomic", "progress", "data", "lm", "evaluation", "stages"},
    "chat": {"config", "rundir", "lm", "stages"},
    "deploy": {"config", "rundir", "atomic", "progress", "lm", "stages", "report"},
    "selftest": {"config", "rundir", "progress", "rl", "lm", "stages"},
    "terminal": {"lm", "stages", "selftest", "evaluation", "report"},
    "cli": {
        "config",
        "rundir",
        "progress",
        "stages",
        "agents",
        "selfplay",
        "evaluation",
        "report",
        "chat",
        "selftest",
        "terminal",
        "deploy",
        "collect",
        "starter",
        "processes",
    },
}
# Outside packages that a part must never see.
NEVER: dict[str, set[str]] = {
    "starter": HEAVY,
    "config": HEAVY,
    "rundir": HEAVY,
    "machine": HEAVY,
    "atomic": HEAVY,
    "stopping": HEAVY,
    "gates": HEAVY,
    "data": HEAVY,
    "report": HEAVY | {"numpy", "scipy", "datasets"},
    "cli": HEAVY,
    "lm": {"gymnasium", "trl", "accelerate"},
    "evaluation": {"gymnasium", "trl", "accelerate"},
    "collect": HEAVY,
    "agents": {"transformers", "peft", "trl", "bitsandbytes"},
    "games": HEAVY,
    "selfplay": {"transformers", "peft", "trl", "bitsandbytes", "accelerate"},
}
STANDARD_FOR_RL = {"torch"}


def imports(path: Path, root: Path) -> Iterator[str]:
    """Every module that a file imports, absolute, wherever the statement stands."""
    package = ["pipeline", *path.relative_to(root).parent.parts]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            # `from pipeline import lm` imports a part by its name
            yield from (f"{module}.{alias.name}" for alias in node.names)


def part_of(path: Path, root: Path) -> str:
    return path.relative_to(root).with_suffix("").parts[0]


def violations(root: Path) -> list[str]:
    """Imports that the rules forbid, as 'file imports module'."""
    import sys

    found = []
    for path in sorted(root.rglob("*.py")):
        part = part_of(path, root)
        for module in imports(path, root):
            names = module.split(".")
            if names[0] == "pipeline":
                target = names[1] if len(names) > 1 else ""
                allowed = MAY_IMPORT.get(part, set()) | {part}
                bad = target in OWN and target not in allowed
            elif part == "rl":
                bad = names[0] not in STANDARD_FOR_RL and names[0] not in sys.stdlib_module_names
            else:
                bad = names[0] in NEVER.get(part, set())
            if bad:
                found.append(f"{path.relative_to(root)} imports {module}")
    return found


def test_the_package_keeps_its_layers() -> None:
    assert violations(PACKAGE) == []


def test_the_rules_have_no_cycle() -> None:
    order: list[str] = []
    rest = dict(MAY_IMPORT)
    while rest:
        free = [part for part, needs in rest.items() if needs <= set(order)]
        assert free, f"a cycle among {sorted(rest)}"
        order += free
        rest = {part: needs for part, needs in rest.items() if part not in free}


def test_every_part_has_its_rule() -> None:
    parts = {part_of(path, PACKAGE) for path in PACKAGE.rglob("*.py")} - {"__init__", "__main__"}
    assert parts <= set(MAY_IMPORT)
    assert {"rl", "lm", "stages", "cli"} <= parts


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("rl/losses.py", "from pipeline.config import Config"),
        ("rl/losses.py", "import numpy"),
        ("lm/policy.py", "from pipeline.stages.inputs import read"),
        ("lm/policy.py", "from pipeline import stages"),
        ("lm/policy.py", "from ..stages import inputs"),
        ("data/files.py", "import torch"),
        ("report/html.py", "def draw():\n    import torch"),
        ("report/html.py", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from pipeline.lm import chat"),
        ("config.py", "from transformers.utils import logging"),
        ("cli.py", "import torch"),
    ],
)
def test_a_planted_violation_is_found(tmp_path: Path, file: str, line: str) -> None:
    path = tmp_path / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(line + "\n", encoding="utf-8")
    assert len(violations(tmp_path)) == 1


def test_innocent_imports_are_not_found(tmp_path: Path) -> None:
    (tmp_path / "rl").mkdir()
    (tmp_path / "rl" / "kl.py").write_text(
        "import math\nimport torch\nfrom .tensors import masked_mean\n", encoding="utf-8"
    )
    (tmp_path / "chat.py").write_text("from pipeline.stages.inputs import load_backbone\n", encoding="utf-8")
    (tmp_path / "cli.py").write_text("from pipeline import __version__\n", encoding="utf-8")
    assert violations(tmp_path) == []
