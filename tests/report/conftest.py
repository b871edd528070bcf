"""One headless Chromium for the tests that need one, and a page to show in it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.report.html import write_report
from tests.chromium import Tab, chromium

from .builder import build


@pytest.fixture(scope="package")
def browser() -> Iterator[Tab]:
    with chromium() as started:
        yield Tab(started.new_page())


@pytest.fixture(scope="package")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a whole run."""
    return write_report(build(tmp_path_factory.mktemp("runs") / "whole", prompts=60, steps=12))
