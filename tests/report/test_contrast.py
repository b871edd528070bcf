"""Text can be told from its ground, in light, dark and print; lines and areas of charts, too."""

import re
from collections.abc import Sequence
from itertools import combinations
from math import dist
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


def linear(color: str) -> list[float]:
    """Red, green and blue of a hex colour as linear light in [0, 1]."""
    digits = color[1:] if len(color) == 7 else "".join(2 * digit for digit in color[1:])
    parts = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
    return [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]


def luminance(color: str) -> float:
    """Relative luminance (WCAG 2.2)."""
    red, green, blue = linear(color)
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


# Machado, Oliveira & Fernandes 2009, "A Physiologically-based Model for Simulation of Color Vision Deficiency",
# severity 1.
SIGHT = {
    "usual": ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    "protanopia": ((0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216), (-0.003882, -0.048116, 1.051998)),
    "deuteranopia": ((0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413), (-0.011820, 0.042940, 0.968881)),
    "tritanopia": ((1.255528, -0.076749, -0.178779), (-0.078411, 0.930809, 0.147602), (0.004733, 0.691367, 0.303900)),
}
# Ottosson 2020, "A perceptual color space for image processing": linear sRGB → cone responses → Oklab.
CONES = (
    (0.4122214708, 0.5363325363, 0.0514459929),
    (0.2119034982, 0.6806995451, 0.1073969566),
    (0.0883024619, 0.2817188376, 0.6299787005),
)
OKLAB = (
    (0.2104542553, 0.7936177850, -0.0040720468),
    (1.9779984951, -2.4285922050, 0.4505937099),
    (0.0259040371, 0.7827717662, -0.8086757660),
)


def times(matrix: Sequence[Sequence[float]], vector: Sequence[float]) -> list[float]:
    return [sum(a * b for a, b in zip(row, vector, strict=True)) for row in matrix]


def seen(color: str, sight: str) -> list[float]:
    """A colour's place in Oklab, as an eye of this sight has it."""
    inside = [min(1.0, max(0.0, part)) for part in times(SIGHT[sight], linear(color))]
    return times(OKLAB, [part ** (1 / 3) for part in times(CONES, inside)])


@pytest.mark.parametrize("sight", SIGHT)
@pytest.mark.parametrize("name", ["light", "dark"])
def test_eight_runs_can_be_told_apart(name: str, sight: str) -> None:
    """Okabe and Ito's eight colours, made for this, come to .076 at the closest; these keep .1, and 3:1 on the page."""
    colors = [palettes()[name][f"run-{i}"] for i in range(1, 9)]
    assert min(dist(seen(a, sight), seen(b, sight)) for a, b in combinations(colors, 2)) > 0.1
    wong = ["#000000", "#e69f00", "#56b4e9", "#009e73", "#f0e442", "#0072b2", "#d55e00", "#cc79a7"]
    assert min(
        dist(seen(a, "deuteranopia"), seen(b, "deuteranopia")) for a, b in combinations(wong, 2)
    ) == pytest.approx(0.076, abs=0.001)
