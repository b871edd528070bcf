"""What the page's script does, in a real browser: sorting tables; filtering, sorting and comparing samples."""

import json
from pathlib import Path
from typing import Any

from pipeline.report.compare import write_comparison
from pipeline.report.html import write_report
from tests.chromium import Tab

from .builder import build
from .test_report import HOSTILE, plant_hostile_texts

TABLE = """<table id="planted"><caption>c</caption><thead><tr><th>Value</th><th>Word</th></tr></thead><tbody>
%s</tbody></table></main>"""
# In rising order; two that say nothing go last both ways.
RISING = ["−1,234.5", "−1.56", "0.006 s", "+0.31", "9 % [1, 12]", "[55, 69]", "62.3 % [55, 69]", "100 s", "4 min 20 s"]
RISING += ["1,000", "1 h 0 min", "1.2 million"]


def choose(browser: Tab, name: str, value: str | bool) -> None:
    """Set a field of the filter as a reader would, and tell its form."""
    field = f"document.getElementById('filter').elements.{name}"
    what = (
        f"{field}.checked = {json.dumps(value)}" if isinstance(value, bool) else f"{field}.value = {json.dumps(value)}"
    )
    browser.run(f"{what}; {field}.dispatchEvent(new Event('input', {{bubbles: true}}))")


def visible(browser: Tab, what: str = "textContent") -> list[Any]:
    """Something of every sample that the filter lets through, in the order on the page."""
    expression = f"[...document.querySelectorAll('.sample')].filter(s => !s.hidden).map(s => s.{what})"
    found: list[Any] = browser.run(expression)
    return found


def count(browser: Tab) -> str:
    told: str = browser.run("document.querySelector('#filter output').textContent")
    return told


def test_a_head_sorts_its_table_by_keyboard(browser: Tab, page: Path) -> None:
    browser.open(page)
    assert browser.run("document.querySelector('[aria-sort]')") is None
    column = "[...document.querySelectorAll('.numbers')[0].tBodies[0].rows].map((r) => r.cells[1].textContent.trim())"
    before = browser.run(column)
    browser.run("document.querySelectorAll('thead button')[1].focus()")
    for key, state in (("Enter", "ascending"), (" ", "descending"), ("Enter", None)):
        browser.press(key)
        assert browser.run("document.activeElement.parentNode.getAttribute('aria-sort')") == state
        rates = [float(cell.split("\xa0")[0]) for cell in browser.run(column)]
        if state:
            assert rates == sorted(rates, reverse=state == "descending")
        assert browser.run("document.querySelectorAll('[aria-sort]').length") == (state is not None)
    assert browser.run(column) == before


def test_numbers_sort_as_numbers_and_dashes_stay_last(browser: Tab, page: Path, tmp_path: Path) -> None:
    shuffled = [*RISING[1::2], "–", "", *RISING[::2]]
    rows = "".join(
        f"<tr><td>{value}</td><td>{word}</td></tr>"
        for value, word in zip(shuffled, ["zebra", "apple", "10th", "9th"] * 4, strict=False)
    )
    copy = tmp_path / "sort.html"
    copy.write_text(page.read_text(encoding="utf-8").replace("</main>", TABLE % rows, 1), encoding="utf-8")
    browser.open(copy)
    column = "[...document.querySelectorAll('#planted tbody tr')].map((r) => r.cells[%d].textContent)"
    click = "document.querySelectorAll('#planted button')[%d].click()"
    browser.run(click % 0)
    assert browser.run(column % 0) == [*RISING, "–", ""]
    browser.run(click % 0)
    assert browser.run(column % 0) == [*reversed(RISING), "–", ""]
    browser.run(click % 1)
    words = browser.run(column % 1)
    assert list(dict.fromkeys(words)) == ["9th", "10th", "apple", "zebra"]  # one word makes the column text
    assert browser.run("document.querySelectorAll('#planted [aria-sort]').length") == 1


def test_the_filter_finds_what_is_there_and_says_how_much(browser: Tab, page: Path) -> None:
    browser.open(page)
    rows = [json.loads(line) for line in (page.parent / "evaluate" / "samples.jsonl").read_text().splitlines()]
    assert browser.run("document.querySelector('#filter output').getAttribute('aria-live')") == "polite"
    assert count(browser) == ""

    choose(browser, "category", "baking")
    assert count(browser) == f"{sum(row['category'] == 'baking' for row in rows)} of 60 match"
    choose(browser, "text", "  My TEA ")
    assert count(browser) == "0 of 60 match"
    choose(browser, "category", "")
    assert count(browser) == f"{sum('My tea' in row['prompt'] for row in rows)} of 60 match"
    assert all("My tea is bitter." in text for text in visible(browser))

    browser.run("document.querySelector('#filter button').click()")
    browser.run("new Promise((done) => setTimeout(done, 20))")
    assert count(browser) == ""
    assert len(visible(browser)) == 60

    cut = sum(not row["answers"]["base"]["stopped"] for row in rows)
    assert 0 < cut < 60
    choose(browser, "cut", "base")
    assert count(browser) == f"{cut} of 60 match"
    assert browser.run("[...document.getElementById('filter').elements.cut.options].map((o) => o.value)") == [
        "",
        "base",
    ]
    won = sum(row["answers"]["policy"]["judge"] > row["answers"]["sft"]["judge"] for row in rows)
    choose(browser, "cut", "")
    choose(browser, "result", "wins")
    assert count(browser) == f"{won} of 60 match"
    assert browser.complaints() == []


def test_samples_sort_by_margin_and_by_length(browser: Tab, page: Path) -> None:
    browser.open(page)
    as_it_was = visible(browser)
    for order, figure, sign in (("margin", "margin", 1), ("-longer", "longer", -1), ("longer", "longer", 1)):
        choose(browser, "order", order)
        figures = [sign * float(value) for value in visible(browser, f"dataset.{figure}")]
        assert figures == sorted(figures)
        assert len(set(figures)) > 1
        assert all(browser.run("[...document.querySelectorAll('.sample')].map((s) => s.checkVisibility())"))
        assert browser.run("document.getElementById('others').checkVisibility()") is False  # it is empty now
    choose(browser, "order", "")
    assert visible(browser) == as_it_was
    assert browser.run("document.getElementById('others').checkVisibility()") is True
    assert browser.run("document.querySelectorAll('#others .sample').length") == 20
    choose(browser, "text", "egg")
    margins = [float(value) for value in visible(browser, "dataset.margin")]
    assert margins == sorted(margins, reverse=True)


def test_differences_are_marked_on_request_and_never_change_a_text(browser: Tab, page: Path) -> None:
    browser.open(page)
    before, html = visible(browser), browser.run("document.getElementById('gallery').innerHTML")
    choose(browser, "differences", True)
    assert visible(browser) == before
    marks = (
        "[...document.querySelectorAll('#gallery %s')].map((e) => [e.closest('.answer').classList[1], e.textContent])"
    )
    inserted, deleted = browser.run(marks % "ins"), browser.run(marks % "del")
    assert {system for system, _ in inserted} == {"policy"}
    assert {system for system, _ in deleted} == {"sft"}
    assert {"then cold water", "easy peel"} <= {text for _, text in inserted}
    roles = {node["role"]["value"] for node in browser.call("Accessibility.getFullAXTree")["nodes"] if "role" in node}
    assert {"insertion", "deletion"} <= roles
    lines = browser.run(
        "['ins', 'del'].map((t) => getComputedStyle(document.querySelector('#gallery ' + t)).textDecorationStyle)"
    )
    assert lines == ["solid", "dashed"]  # told apart without colour
    choose(browser, "differences", False)
    assert browser.run("document.getElementById('gallery').innerHTML") == html


def test_hostile_texts_stay_texts(browser: Tab, tmp_path: Path) -> None:
    run = build(tmp_path / "hostile", prompts=5, steps=3)
    plant_hostile_texts(run)
    browser.open(write_report(run), width=390)
    browser.run("document.querySelectorAll('thead button').forEach((b) => b.click())")
    choose(browser, "text", "<script>")
    assert count(browser) == "2 of 2 match"
    choose(browser, "differences", True)
    assert (
        browser.run("[...document.querySelectorAll('#gallery ins')].map((e) => e.textContent)") == ["<b>more</b>"] * 2
    )
    hostile = browser.run("document.getElementById('filter').elements.category.options[2].value")
    choose(browser, "category", hostile)
    assert count(browser) == "1 of 2 match"
    assert visible(browser, "querySelector('h3').textContent")[0].startswith(HOSTILE[:40])
    assert browser.run("document.images.length") == 0
    assert browser.run("document.documentElement.scrollWidth") == 390
    assert browser.complaints() == []
    assert browser.requests() == []


def test_a_comparison_sorts_and_filters(browser: Tab, tmp_path: Path) -> None:
    runs = [build(tmp_path / name, prompts=12, steps=2, policy_wins=rate) for name, rate in (("a", 0.9), ("b", 0.5))]
    write_comparison(runs, tmp_path / "page.html")
    browser.open(tmp_path / "page.html")
    browser.run(
        "[...document.querySelectorAll('thead button')].find((b) => b.textContent == 'Policy beats SFT').click()"
    )
    rows = "[...document.querySelectorAll('table')[0].tBodies[0].rows].map((row) => row.cells[0].textContent)"
    assert browser.run(rows) == ["2 · b", "1 · a"]
    choose(browser, "category", "drinks")
    shown, total = len(visible(browser)), browser.run("document.querySelectorAll('.sample').length")
    assert count(browser) == f"{shown} of {total} match"
    assert 0 < shown < total
