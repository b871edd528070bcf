"""Matplotlib figures as inline SVG: themed by the page's CSS, fonts of the page, and the same bytes every time."""

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb, to_rgba_array
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

# Colours stand for CSS variables: drawn with a placeholder, exchanged in the SVG, so that light and dark both work.
_ROLES = (
    *("ink", "muted", "grid", "base", "sft", "policy", "best_of_n", "dpo", "reward", "judge"),
    *("phase-1", "phase-2", "phase-3", "phase-4", "phase-5", "phase-6"),
    *(f"ramp-{i}" for i in range(8)),
    *(f"run-{i}" for i in range(1, 9)),
)
COLORS = {role: f"#fe{i:02x}a7" for i, role in enumerate(_ROLES)}
RAMP = [COLORS[f"ramp-{i}"] for i in range(8)]
PHASES = [COLORS[f"phase-{i}"] for i in range(1, 7)]

STYLE_SHEET = Path(__file__).parent / "templates" / "page.css"
PNG_DPI = 216  # three pixels a point
WIDTH = 340.0  # points; a chart is shown at about one pixel a point, so that its text has the page's size
ROUND = [1, 2, 2.5, 5, 10]  # distances between ticks, times a power of ten
STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "report",
    "text.parse_math": False,
    "font.size": 10.0,
    "text.color": COLORS["ink"],
    "axes.edgecolor": COLORS["grid"],
    "axes.labelcolor": COLORS["muted"],
    "axes.titlecolor": COLORS["muted"],
    "axes.titlesize": 10.0,
    "axes.titlelocation": "left",
    "axes.titlepad": 7.0,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "axes.formatter.useoffset": False,
    "grid.color": COLORS["grid"],
    "grid.linewidth": 0.8,
    "xtick.major.size": 0.0,
    "ytick.major.size": 0.0,
    "xtick.minor.size": 0.0,
    "ytick.minor.size": 0.0,
    "xtick.labelcolor": COLORS["muted"],
    "ytick.labelcolor": COLORS["muted"],
    "legend.frameon": False,
    "legend.fontsize": 10.0,
    "legend.handlelength": 1.1,
    "legend.handletextpad": 0.45,
    "legend.columnspacing": 1.0,
    "legend.borderaxespad": 0.1,
    "legend.borderpad": 0.0,
    "lines.solid_capstyle": "round",
}


class Canvas:
    """A chart being drawn; `svg` holds it afterwards."""

    def __init__(self, figure: Figure, axes: Axes) -> None:
        self.figure, self.axes = figure, axes
        self.svg = ""


@contextmanager
def canvas(name: str, alt: str, *, height: float = 190.0, png: Path | None = None) -> Iterator[Canvas]:
    """Axes to draw on; on leaving, the canvas holds the finished SVG. `name` is unique on the page.

    Where a file `png` is named, the picture is written there too, in the light page's colours.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH / 72, height / 72), dpi=72, layout="constrained")
        drawing = Canvas(figure, figure.subplots())
        drawing.axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, steps=ROUND))
        drawing.axes.yaxis.set_major_locator(MaxNLocator(5, steps=ROUND, min_n_ticks=3))
        yield drawing
        # Laid out once by hand: savefig would draw the whole figure another time to find the same places.
        if engine := figure.get_layout_engine():
            engine.execute(figure)
            figure.set_layout_engine("none")
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
        if png is not None:
            _in_light_colors(figure)
            figure.savefig(png, format="png", dpi=PNG_DPI, metadata={"Software": None})
    drawing.svg = inline(buffer.getvalue(), name, alt)


def _in_light_colors(figure: Figure) -> None:
    """Exchange the placeholders for what the style sheet says of them in light."""
    sheet = STYLE_SHEET.read_text(encoding="utf-8").split("}", 1)[0]
    values = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", sheet))
    light = {placeholder: values[role] for role, placeholder in COLORS.items() if role in values}
    for artist in figure.findobj():
        for kind in ("color", "facecolor", "edgecolor", "markerfacecolor", "markeredgecolor"):
            get, put = (getattr(artist, f"{verb}_{kind}", None) for verb in ("get", "set"))
            if get is not None and put is not None:
                put(_exchanged(get(), light))
    figure.set_facecolor(values["paper"])
    for axes in figure.axes:
        axes.set_facecolor(values["paper"])


def _exchanged(color: Any, light: dict[str, str]) -> Any:
    """A colour, or the colours of a collection, with placeholders exchanged and their opacity kept."""
    if isinstance(color, str) and color.lower() in ("none", "auto"):
        return color
    rows = to_rgba_array(color)
    found = [(*to_rgb(light.get(to_hex(row), to_hex(row))), row[3]) for row in rows]
    return found if getattr(color, "ndim", 1) == 2 else found[0]


def inline(svg: str, name: str, alt: str) -> str:
    """The SVG element alone, made fit to stand inside an HTML page."""
    viewbox = re.search(r'viewBox="([^"]+)"', svg)
    body = re.search(r"<svg[^>]*>(.*)</svg>", svg, re.S)
    assert viewbox, "matplotlib wrote no SVG"
    assert body, "matplotlib wrote no SVG"
    text = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", body[1], flags=re.S)
    text = re.sub(r"font(-family)?: [^;\"]*'DejaVu Sans'[^;\"]*", _font, text)
    text = text.replace("xlink:href", "href")
    used = set(re.findall(r'(?:href="#|url\(#)([^")]+)', text))
    text = re.sub(r'\s+id="([^"]+)"', lambda m: f' id="{name}-{m[1]}"' if m[1] in used else "", text)
    text = re.sub(r'(href="#|url\(#)', rf"\g<1>{name}-", text)
    text = re.sub(r"\s*\n\s*", " ", text)
    for role, color in COLORS.items():
        text = text.replace(color, f"var(--{role})")
    text = re.sub(r"<[^>]*>", lambda tag: re.sub(r"(\d\.\d\d)\d+", r"\1", tag[0]), text)
    return f'<svg class="chart" role="img" aria-label="{_attribute(alt)}" viewBox="{viewbox[1]}">{text}</svg>'


def _font(match: re.Match[str]) -> str:
    """The size stays; the family is the page's."""
    size = re.search(r"[\d.]+px", match[0])
    return f"font-size: {size[0]}" if size else ""


def _attribute(text: str) -> str:
    return text.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;").replace(">", "&gt;")
