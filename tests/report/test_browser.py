"""The pages in a real browser: quiet, self-contained, narrow, on paper, by keyboard, without their script."""

import json
from itertools import pairwise
from pathlib import Path

import pytest

from pipeline.report.compare import write_comparison
from pipeline.report.html import write_report
from tests.chromium import Tab

from .builder import build, configure
from .test_report import plant_hostile_texts

TOO_WIDE = """[...document.querySelectorAll("body *")].filter((e) => e.getBoundingClientRect().right > innerWidth + 0.5
  && !e.closest(".scroll, pre, .skip")).map((e) => e.outerHTML.slice(0, 120))"""


@pytest.mark.parametrize(
    ("width", "scheme", "media", "paper"),
    [
        (1280, "light", "screen", "rgb(251, 250, 248)"),
        (390, "dark", "screen", "rgb(21, 23, 26)"),
        (320, "light", "screen", "rgb(251, 250, 248)"),
        (700, "dark", "print", "rgb(255, 255, 255)"),
    ],
)
def test_it_fits_and_neither_complains_nor_asks_for_anything(
    browser: Tab, page: Path, width: int, scheme: str, media: str, paper: str
) -> None:
    browser.open(page, width=width, media=media, scheme=scheme)
    browser.run("document.querySelectorAll('details').forEach((d) => (d.open = true))")
    assert browser.run("document.documentElement.scrollWidth") == width
    assert browser.run(TOO_WIDE) == []
    assert browser.run("getComputedStyle(document.body).backgroundColor") == paper
    assert browser.complaints() == []
    assert browser.requests() == []


def test_the_watch_sees_what_is_forbidden(browser: Tab, page: Path, tmp_path: Path) -> None:
    """Else the silence of the test above would prove nothing."""
    copy = tmp_path / "copy.html"
    script = 'console.log("said"); fetch("https://example.org/y")'
    planted = f'<img src="https://example.org/x.png"><script>{script}</script><p style="width: 2000px">wide</p></main>'
    copy.write_text(page.read_text(encoding="utf-8").replace("</main>", planted), encoding="utf-8")
    browser.open(copy, width=390)
    told = json.dumps(browser.complaints())
    assert all(sign in told for sign in ("said", "x.png", "img-src", "example.org/y", "default-src"))
    assert browser.requests() == ["https://example.org/x.png"]  # asked for, and stopped by the policy
    assert browser.run("document.documentElement.scrollWidth") > 390
    assert len(browser.run(TOO_WIDE)) == 1


def test_without_script_it_shows_all(browser: Tab, page: Path) -> None:
    browser.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        browser.open(page)
        assert browser.run("document.getElementById('filter').checkVisibility()") is False
        assert browser.run("document.querySelectorAll('thead button, #gallery ins, #gallery del').length") == 0
        assert browser.run("[...document.querySelectorAll('.sample')].filter((s) => s.checkVisibility()).length") == 40
        assert browser.run("document.querySelectorAll('.sample').length") == 60  # the others under "Show all"
    finally:
        browser.call("Emulation.setScriptExecutionDisabled", value=False)


def test_headings_and_landmarks_are_in_order(browser: Tab, page: Path) -> None:
    browser.open(page)
    levels = browser.run("[...document.querySelectorAll('h1, h2, h3, h4')].map((h) => Number(h.tagName[1]))")
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(later <= earlier + 1 for earlier, later in pairwise(levels))
    nodes = browser.call("Accessibility.getFullAXTree")["nodes"]
    roles = [node["role"]["value"] for node in nodes if not node["ignored"] and "role" in node]
    assert [roles.count(role) for role in ("banner", "navigation", "main", "search", "form")] == [1, 1, 1, 0, 1]
    named = {node["role"]["value"] for node in nodes if not node["ignored"] and not node.get("name", {}).get("value")}
    assert not named & {
        "button",
        "link",
        "textbox",
        "searchbox",
        "combobox",
        "switch",
        "image",
        "region",
        "form",
        "table",
    }


def test_every_stop_of_the_keyboard_shows_where_it_is(browser: Tab, page: Path) -> None:
    browser.open(page)
    stops = []
    for _ in range(14):
        browser.press("Tab")
        stops.append(browser.run("document.activeElement.textContent"))
        width, style = browser.run(
            "(s => [parseFloat(s.outlineWidth), s.outlineStyle])(getComputedStyle(document.activeElement))"
        )
        assert (width, style) == (2, "solid"), stops
    assert stops[:3] == ["Skip to the figures", "Win rates", "Answers"]
    assert "Win rate" in stops  # the heads of a table are stops, too


def test_a_partial_run_is_as_quiet(browser: Tab, tmp_path: Path) -> None:
    browser.open(write_report(build(tmp_path / "part", stages=("sft",))), width=390)
    assert browser.run("document.documentElement.scrollWidth") == 390
    assert browser.complaints() == []


@pytest.fixture(scope="module")
def comparison(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four runs, one hostile, one with a long name and unfinished."""
    root = tmp_path_factory.mktemp("compared")
    names = ["ppo", "rloo", "hostile", "a-run-with-quite-a-long-name-and-so-on-and-on"]
    runs = [build(root / name, prompts=12, steps=25, policy_wins=0.6) for name in names]
    plant_hostile_texts(runs[2])
    (runs[3] / "evaluate" / "result.json").unlink()
    configure(runs[1], policy={"algorithm": "rloo", "a_setting": "x" * 300})
    write_comparison(runs, root / "page.html")
    return root / "page.html"


@pytest.mark.parametrize(("width", "media"), [(1280, "screen"), (390, "screen"), (700, "print")])
def test_a_comparison_fits_and_is_quiet(browser: Tab, comparison: Path, width: int, media: str) -> None:
    browser.open(comparison, width=width, media=media)
    assert browser.run("document.documentElement.scrollWidth") == width
    assert browser.run(TOO_WIDE) == []
    assert browser.complaints() == []
    assert browser.requests() == []


def test_it_prints(browser: Tab, page: Path) -> None:
    browser.open(page, scheme="dark")
    assert len(browser.call("Page.printToPDF")["data"]) > 50_000
    browser.open(page, media="print")
    shown = browser.run(
        "['nav', '#filter', '#others', '.sample'].map((s) => document.querySelector(s).checkVisibility())"
    )
    assert shown == [False, False, False, True]
