"""The pages that people read, and what stands in them: blocks, commands, links."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "data" / "README.md", *sorted(ROOT.glob("docs/*.md"))]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
MARK = re.compile(r"<!-- example: (.+?) -->\n$")  # stands right above a block


@dataclass(frozen=True)
class Block:
    """A fenced block: its language ("" = none told), the mark above it, and where it stands."""

    page: Path
    line: int
    language: str
    text: str
    mark: str | None

    @property
    def where(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


@dataclass(frozen=True)
class Line:
    """A command as a reader would type it. In running text its arguments may be left out."""

    where: str
    words: tuple[str, ...]
    whole: bool


def blocks(page: Path) -> Iterator[Block]:
    text = page.read_text(encoding="utf-8")
    for found in FENCE.finditer(text):
        mark = MARK.search(text, 0, found.start())
        line = text.count("\n", 0, found.start()) + 1
        yield Block(page, line, found[1], found[2], mark[1] if mark and mark.end() == found.start() else None)


def commands(program: str) -> list[Line]:
    """Every line `program …` in a block without another language, and every `program …` in running text."""
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        name = page.relative_to(ROOT)
        for block in blocks(page):
            if block.language in ("", "sh", "bash", "console"):
                lines = re.sub(r"\\\n\s*", "", block.text).splitlines()
                found += [Line(block.where, words, True) for one in lines if (words := _words(one, program))]
        prose = FENCE.sub(lambda match: "\n" * match[0].count("\n"), text)
        for match in re.finditer(r"`([^`]+)`", prose):
            if words := _words(match[1].replace("\n", " "), program):
                found.append(Line(f"{name}:{prose.count(chr(10), 0, match.start()) + 1}", words, False))
    return found


def _words(line: str, program: str) -> tuple[str, ...]:
    """The words after `program`, without brackets around what may be left out; empty for other lines."""
    line = re.sub(r"\[(-[^\]]+|[A-Z=]+)\]…?", r"\1", line.strip().removeprefix("$ "))
    if not line.startswith(f"{program} "):
        return ()
    line = re.sub(r"(?<=[ =-])[NS]\b", "1", line)  # any number, any seed
    return tuple(word for word in shlex.split(line, comments=True)[1:] if word not in ("…", "RUN…"))
