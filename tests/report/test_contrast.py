"""Text can be told from its ground, in light, dark and print; lines and areas of charts, too."""

import re
from pathlib import Path

import pytest

import pipeline.report
from pipeline.report.svg import COLORS

CSS = (Path(pipeline.report.__file__).parent / "templates" / "page.css").read_text(encoding="utf-8")
TEXT, GROUNDS = ("ink", "muted", "accent", "warn"), ("paper", "panel", "warn-paper")


def palettes() -> dict[str, dict[str, str]]:
    """The variables under each of the stylesheet's :root blocks; dark and print change some of light's."""
    blocks = re.findall(r":root \{(.*?)\}", CSS, re.S)
    light, dark, printed = (dict(re.findall(r"--([\w-]+): (#[0-9a-f]+);", block)) for block in blocks)
    return {"light": light, "dark": light | dark, "print": light | printed}


def luminance(color: str) -> float:
    """Relative luminance of a hex colour (WCAG 2.2)."""
    digits = color[1:] if len(color) == 7 else "".join(2 * digit for digit in color[1:])
    parts = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
    red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    """(L₁ + .05) / (L₂ + .05), the lighter one above: 1 for equal colours, 21 for black on white."""
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_the_formula() -> None:
    assert contrast("#000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#fff") == pytest.approx(4.48, abs=0.01)  # the grey that just fails


@pytest.mark.parametrize("name", ["light", "dark", "print"])
def test_text_on_its_ground(name: str) -> None:
    colors = palettes()[name]
    pairs = [(text, ground) for text in TEXT for ground in GROUNDS]
    pairs += [(text, ground) for text in ("ink", "muted") for ground in ("said", "unsaid")]
    low = {pair: contrast(colors[pair[0]], colors[pair[1]]) for pair in pairs}
    assert {pair: ratio for pair, ratio in low.items() if ratio < 4.5} == {}


@pytest.mark.parametrize("name", ["light", "dark", "print"])
def test_what_charts_draw(name: str) -> None:
    colors = palettes()[name]
    drawn = [role for role in COLORS if role != "grid" and not role.startswith("ramp")]
    low = {role: contrast(colors[role], colors["paper"]) for role in drawn}
    assert {role: ratio for role, ratio in low.items() if ratio < 3} == {}


def test_every_colour_of_a_chart_is_a_variable_of_the_page_in_light_and_in_dark() -> None:
    blocks = re.findall(r":root \{(.*?)\}", CSS, re.S)[:2]
    assert all(f"--{role}: #" in block for role in COLORS for block in blocks)
