"""`make docs`: links are turned right, formulas need no script, and the built site asks nobody for anything."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from tests.docs.pages import ROOT

for _need in ("mkdocs", "mkdocstrings", "material", "latex2mathml"):
    pytest.importorskip(_need)


@pytest.fixture(scope="module")
def hooks() -> Any:
    spec = importlib.util.spec_from_file_location("site_pages", ROOT / "docs" / "site_pages.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("source", "target", "before", "after"),
    [
        ("README.md", "index.md", "[a](docs/data.md#bad-rows)", "[a](data.md#bad-rows)"),
        ("README.md", "index.md", "![a](docs/report.png)", "![a](report.png)"),
        ("README.md", "index.md", "[a](data/README.md)", "[a](quickstart-data.md)"),
        ("README.md", "index.md", "[a](https://example.org/x.md) [b](#limits)", None),
        ("docs/data.md", "data.md", "[a](../README.md) [b](agents.md)", "[a](index.md) [b](agents.md)"),
        ("README.md", "index.md", "[a](LICENSE)", None),  # not on the site: strict mode names it
    ],
)
def test_links_are_turned_to_the_site(hooks: Any, source: str, target: str, before: str, after: str | None) -> None:
    assert hooks.moved(before, source, target) == (after or before)


def test_formulas_become_mathml_and_code_stays(hooks: Any) -> None:
    drawn = hooks.on_page_markdown("so $\\pi(a|s)$ and\n\n$$x_1$$\n")
    assert drawn.count("<math") == 2
    assert 'display="block"' in drawn
    assert "|" not in drawn  # would end a table's cell
    for text in ("`$HOME` and `$PATH`", "```\necho $A $B\n```", "costs $5 or $6"):
        assert hooks.on_page_markdown(text) == text


def test_every_part_has_its_page(hooks: Any) -> None:
    parts = {path.parent.name for path in (ROOT / "pipeline").glob("*/__init__.py")}
    assert parts == set(hooks.PARTS)


class Requests(HTMLParser):
    """Addresses that a page loads by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        given = dict(attrs)
        wanted = given.get("src") or (given.get("href") if tag == "link" else None)
        if wanted and re.match(r"(\w+:)?//", wanted):
            self.found.append(wanted)


def build(place: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-f", str(place / "mkdocs.yml")]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    return subprocess.run([*command, "-d", str(place / "site")], capture_output=True, text=True, env=environment)


@pytest.mark.slow
def test_the_site_builds_asks_nobody_and_notices_a_broken_link(tmp_path: Path) -> None:
    for name in ("docs", "pipeline", "data"):
        shutil.copytree(ROOT / name, tmp_path / name)
    for name in ("mkdocs.yml", "README.md", "CONTRIBUTING.md"):
        shutil.copy(ROOT / name, tmp_path / name)
    done = build(tmp_path)
    assert done.returncode == 0, done.stderr
    for page in (tmp_path / "site").rglob("*.html"):
        requests = Requests()
        requests.feed(page.read_text(encoding="utf-8"))
        assert not requests.found, page.name
    for sheet in (tmp_path / "site").rglob("*.css"):
        assert not re.search(r"(url\(|@import )['\"]?(https?:)?//", sheet.read_text(encoding="utf-8")), sheet.name
    assert "rloo_advantages" in (tmp_path / "site/api/rl.html").read_text(encoding="utf-8")
    assert not (tmp_path / "site/site_pages.py").exists()
    with open(tmp_path / "docs/data.md", "a", encoding="utf-8") as file:
        file.write("\n[gone](gone.md) [nothing](agents.md#nothing)\n")
    done = build(tmp_path)
    assert done.returncode != 0
    assert "gone.md" in done.stderr
    assert "#nothing" in done.stderr
