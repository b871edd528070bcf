"""Python in README and docs runs, page by page, as a reader would type it from top to bottom.

A block below `<!-- example: run -->` finds a finished run of configs/smoke.yaml at runs/smoke, one below
`<!-- example: excerpt of FILE -->` stands in that file; `>>>` blocks are doctests.
"""

import doctest
import json
import shutil
from pathlib import Path

import pytest

from pipeline.starter import copy_into
from tests.docs.pages import PAGES, ROOT, Block, blocks

EXCERPT = "excerpt of "
EXAMPLES = {page: found for page in PAGES if (found := [b for b in blocks(page) if b.language == "python"])}
NEEDS_RUN = {page for page, found in EXAMPLES.items() if any(block.mark == "run" for block in found)}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the files that the pages speak of."""
    pairs = (ROOT / "data/quickstart/preferences.jsonl").read_text(encoding="utf-8").splitlines()[:40]
    (tmp_path / "pairs.jsonl").write_text("\n".join(pairs) + "\n", encoding="utf-8")
    row = json.loads(pairs[0])
    quiz = f'question_text,model_answer\n"{row["prompt"]}","{row["chosen"]}"\n'
    (tmp_path / "quiz.csv").write_text(quiz, encoding="utf-8")
    copy_into(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def missing(block: Block) -> list[str]:
    """Lines of an excerpt that don't stand in its file; comments are the page's own."""
    source = (ROOT / (block.mark or "").removeprefix(EXCERPT)).read_text(encoding="utf-8")
    lines = {line.partition("  #")[0].strip() for line in source.splitlines()}
    return [line for line in block.text.splitlines() if line.partition("  #")[0].strip() not in lines]


def execute(found: list[Block]) -> None:
    """All blocks of a page in one namespace. An error is told with the page's own line number."""
    names: dict[str, object] = {"__name__": "page"}
    for block in found:
        if (block.mark or "").startswith(EXCERPT):
            assert not missing(block), f"{block.where}: {missing(block)}"
        elif ">>>" in block.text:
            test = doctest.DocTestParser().get_doctest(block.text, names, block.where, str(block.page), block.line)
            runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
            runner.run(test, clear_globs=False)
            assert runner.summarize(verbose=False).failed == 0, block.where
            names |= test.globs
        else:
            exec(compile("\n" * block.line + block.text, str(block.page), "exec"), names)


@pytest.mark.parametrize("page", EXAMPLES, ids=lambda page: str(page.relative_to(ROOT)))
def test_examples_run(page: Path, place: Path, request: pytest.FixtureRequest) -> None:
    if page in NEEDS_RUN:
        (place / "runs").mkdir()
        shutil.copytree(request.getfixturevalue("smoke_run"), place / "runs" / "smoke")
    execute(EXAMPLES[page])


def test_an_outdated_excerpt_is_found() -> None:
    mark = f"{EXCERPT}pipeline/agents/training.py"
    assert missing(Block(ROOT / "README.md", 1, "python", "agent.gone()\n", mark)) == ["agent.gone()"]


@pytest.mark.parametrize("text", ["1 / 0\n", ">>> 1 + 1\n3\n", "from pipeline.rl.kl import gone\n"])
def test_a_wrong_example_is_found(text: str) -> None:
    with pytest.raises((ZeroDivisionError, AssertionError, ImportError)):
        execute([Block(ROOT / "README.md", 1, "python", text, None)])
