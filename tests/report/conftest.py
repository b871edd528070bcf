"""One headless Chromium for the tests that need one, and a page to show in it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.report.html import write_report

from .builder import build
from .chromium import PROGRAM, Tab, tab


@pytest.fixture(scope="package")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    if PROGRAM is None:
        pytest.skip("no chromium, google-chrome or chrome in PATH")
    with tab(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture(scope="package")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a whole run."""
    return write_report(build(tmp_path_factory.mktemp("runs") / "whole", prompts=60, steps=12))
