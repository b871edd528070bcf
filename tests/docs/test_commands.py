"""Every command line in README and docs is one that the program takes, with files and settings that exist."""

import re
from pathlib import Path
from typing import Any

import pytest
import typer

from pipeline.cli.app import app
from pipeline.config import AGENTS, load_agent, load_config, load_grid
from tests.docs.pages import PAGES, ROOT, Line, commands

GROUP: Any = typer.main.get_command(app)
LINES = commands("align")


def name(line: Line) -> str:
    return f"{line.where} {' '.join(line.words)}"


def parse(line: Line) -> tuple[str, dict[str, Any]]:
    """The command and its arguments, as the command line reads them; none where a text leaves required ones out."""
    node, words, path = GROUP, list(line.words), []
    while hasattr(node, "commands") and words and not words[0].startswith("-"):
        if words[0] not in node.commands and hasattr(node, "default"):
            words.insert(0, node.default)
        path.append(words.pop(0).rstrip(","))
        assert path[-1] in node.commands, f"no command `align {' '.join(path)}`"
        node = node.commands[path[-1]]
    if hasattr(node, "commands") or "--help" in words:
        return " ".join(path), {}
    try:
        return " ".join(path), node.make_context(path[-1], words).params
    except Exception as error:
        if type(error).__name__ == "MissingParameter" and not line.whole:
            return " ".join(path), {}
        pytest.fail(f"align {' '.join(line.words)}: {getattr(error, 'message', error)}")


def settings(values: Any) -> list[str]:
    """Overrides, without those that stand for any (KEY=VALUE)."""
    return [one for one in values or () if "=" in one and not one.startswith("KEY")]


def config_for(path: Path) -> Path:
    """The file itself; for a name that stands for the reader's own, the quickstart's."""
    if path.parts[0] == "configs":
        assert (ROOT / path).is_file(), f"{path} isn't there"
        return path
    return Path("configs/quickstart.yaml")


def test_there_are_lines_to_check() -> None:
    assert len(LINES) > 60
    assert {"run", "export", "serve", "agent", "sweep"} <= {line.words[0] for line in LINES if line.whole}


@pytest.mark.parametrize("line", LINES, ids=name)
def test_the_program_takes_it(line: Line, at_root: Path) -> None:
    command, given = parse(line)
    if given.get("config") is not None:
        load = load_grid if command == "sweep" else load_config
        load(config_for(given["config"]), settings(given.get("overrides")))
    if given.get("environment") is not None and command.removeprefix("agent ") in AGENTS:
        load_agent(command.removeprefix("agent "), given["environment"], settings(given.get("overrides")))


@pytest.mark.parametrize(
    "words", ["runn configs/smoke.yaml", "run configs/smoke.yaml --forse", "run configs/gone.yaml", "chat", "serve a b"]
)
def test_a_wrong_line_is_found(words: str, at_root: Path) -> None:
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        test_the_program_takes_it(Line("here", tuple(words.split()), True), at_root)


def test_a_wrong_setting_is_found(at_root: Path) -> None:
    with pytest.raises(ValueError, match="unknown key"):
        test_the_program_takes_it(Line("here", ("run", "configs/smoke.yaml", "policy.stepz=1"), True), at_root)


def test_make_targets_exist() -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    missing = [name(line) for line in commands("make") if line.words[0] not in targets]
    assert not missing


def test_scripts_exist() -> None:
    for page in PAGES:
        for script in re.findall(r"scripts/[\w/]+\.py", page.read_text(encoding="utf-8")):
            assert (ROOT / script).is_file(), f"{page.name}: {script}"
