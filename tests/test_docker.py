"""Dockerfile and workflow, as far as one can tell without building: no root, no secret, nothing that is missing."""

import re
from fnmatch import fnmatch

import pytest
import yaml

from tests.docs.pages import ROOT

LINES = [
    line
    for line in re.sub(r"\\\n\s*", "", (ROOT / "Dockerfile").read_text(encoding="utf-8")).splitlines()
    if line.strip() and not line.startswith("#")
]
LAST_STAGE = LINES[max(i for i, line in enumerate(LINES) if line.startswith("FROM")) :]


def test_it_runs_as_an_ordinary_user_on_this_machine_alone() -> None:
    users = [line.split()[1] for line in LAST_STAGE if line.startswith("USER")]
    assert users == ["align"]
    assert any("useradd" in line and "align" in line for line in LAST_STAGE)
    assert LAST_STAGE.index('ENTRYPOINT ["align"]') > LAST_STAGE.index("USER align")


def test_no_secret_is_built_in() -> None:
    for line in LINES:
        if line.startswith(("ENV", "ARG", "COPY")):
            assert not re.search(r"token|password|secret|api_?key|\.netrc|\.env\b", line, re.IGNORECASE), line


def ignored(path: str) -> bool:
    """The last rule that fits decides; a folder's rule holds for what is in it."""
    found = False
    for rule in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines():
        if not rule or rule.startswith("#"):
            continue
        pattern, parts = rule.removeprefix("!"), path.split("/")
        heads = ["/".join(parts[: n + 1]) for n in range(len(parts))]
        names = parts if pattern.startswith("**/") else heads
        if any(fnmatch(name, pattern.removeprefix("**/")) for name in names):
            found = not rule.startswith("!")
    return found


@pytest.mark.parametrize("path", [".git/config", "runs/a/config.yaml", ".venv/bin/python", ".env", "data/.secret"])
def test_what_is_yours_stays_outside(path: str) -> None:
    assert ignored(path)


def test_what_is_copied_is_there_and_let_in() -> None:
    sources = [word for line in LINES if line.startswith("COPY") and "--" not in line for word in line.split()[1:-1]]
    assert {"pipeline", "configs", "data", "pyproject.toml", "setup.py", "constraints.txt"} <= set(sources)
    for source in sources:
        assert (ROOT / source).exists()
        assert not ignored(source)
    assert not ignored("pipeline/report/templates/page.css")


def test_the_workflow_runs_what_the_readme_says() -> None:
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8"))
    runs = [step["run"] for job in workflow["jobs"].values() for step in job["steps"] if "run" in step]
    assert {"make test", "make check"} <= set(runs)
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert not [run for run in runs if run.removeprefix("make ") not in targets]
    supported = re.findall(r"Python :: (3\.\d+)", (ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert workflow["jobs"]["test"]["strategy"]["matrix"]["python"] == supported
    assert workflow["permissions"] == {"contents": "read"}
