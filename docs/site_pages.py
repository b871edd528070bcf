"""What mkdocs is told of this project (`hooks` in mkdocs.yml): pages that don't lie in docs/ (README and neighbours, a
page of the API for each part), and formulas as MathML, which browsers draw without a script.
"""

import posixpath
import re
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
PAGES = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "data/README.md": "quickstart-data.md"}
# The parts of `pipeline`, the mathematics first.
PARTS = (
    *("rl", "lm", "agents", "games", "selfplay", "data", "evaluation", "stages", "report", "deploy", "collect"),
    *("config", "terminal", "cli"),
)
ROOT_MODULES = "pipeline"
CODE_OR_MATH = re.compile(
    r"^```.*?^```$|`[^`\n]+`|\$\$(.+?)\$\$|(?<![\w\\])\$(?=\S)([^$\n]+?)(?<=\S)\$(?!\w)", re.M | re.S
)
LINK = re.compile(r"(\]\()(?!\w+:|#)([^)\s#]+)(#[^)\s]*)?\)")


def on_files(files: Files, config: Any) -> Files:
    """Add what is generated; links are turned to where their targets stand on the site."""
    for source, target in PAGES.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        files.append(File.generated(config, target, content=moved(text, source, target)))
    for file in list(files):
        if file.src_uri.endswith(".md") and file.generated_by is None:
            text = moved(file.content_string, f"docs/{file.src_uri}", file.src_uri)
            files.remove(file)
            files.append(File.generated(config, file.src_uri, content=text))
    for part in (*PARTS, ROOT_MODULES):
        files.append(File.generated(config, f"api/{part}.md", content=api_page(part)))
    return files


def on_config(config: Any) -> Any:
    """The API's entry in the navigation, one page a part."""
    pages: list[Any] = [{part: f"api/{part}.md"} for part in (*PARTS, ROOT_MODULES)]
    config.nav = [{"API": pages} if entry == {"API": "api/"} else entry for entry in config.nav]
    return config


def api_page(part: str) -> str:
    """What mkdocstrings makes of a part: its modules with their public functions."""
    if part == ROOT_MODULES:
        names = sorted(path.stem for path in (ROOT / "pipeline").glob("*.py") if not path.stem.startswith("_"))
        return "# pipeline\n\n" + "\n".join(
            f"::: pipeline.{name}\n    options: {{heading_level: 2}}\n" for name in names
        )
    return f"::: pipeline.{part}\n"


def moved(text: str, source: str, target: str) -> str:
    """Links as seen from `target` on the site instead of from `source` in the repository. Others stay as they
    are, and `mkdocs build --strict` names them."""

    def turn(match: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), match[2]))
        there = PAGES.get(path) or (path.removeprefix("docs/") if path.startswith("docs/") else None)
        if there is None:
            return match[0]
        return f"{match[1]}{posixpath.relpath(there, posixpath.dirname(target) or '.')}{match[3] or ''})"

    return LINK.sub(turn, text)


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Formulas between dollar signs, outside of code, as MathML."""
    return CODE_OR_MATH.sub(_math, markdown)


def _math(match: re.Match[str]) -> str:
    if not (match[1] or match[2]):
        return match[0]
    drawn = convert(match[1] or match[2], display="block" if match[1] else "inline")
    for mark in "|*_`":  # Markdown's own, in tables and elsewhere
        drawn = drawn.replace(mark, f"&#{ord(mark)};")
    return drawn
