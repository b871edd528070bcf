"""Numbers as a reader wants them: rounded to what they mean, with their unit."""

from collections.abc import Mapping
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

NARROW = "\u00a0"  # a space that doesn't break, between a number and its unit
DASH = "–"
STAGE_NAMES = {"sft": "SFT", "reward": "reward model", "dpo": "DPO", "policy": "policy", "evaluate": "evaluation"}


def system_name(system: str, best_of: int | None = None) -> str:
    """How a system is called in running text."""
    names = {"sft": "SFT", "dpo": "DPO", "best_of_n": f"best of {best_of}" if best_of else "best of n"}
    return names.get(system, system)


def number(value: float | None, digits: int = 2) -> str:
    """With a real minus sign; a dash for nothing. Never −0."""
    if value is None:
        return DASH
    text = f"{value:,.{digits}f}"
    if not text.strip("-0.,"):
        text = text.lstrip("-")
    return text.replace("-", "−")


def percent(share: float | None, digits: int = 0) -> str:
    """0.783 → "78 %"."""
    return DASH if share is None else f"{number(100 * share, digits)}{NARROW}%"


def interval(rate: float, low: float, high: float, digits: int = 0) -> str:
    """ "78 % [71, 84]". One more digit where rounding would put a bound on 50, on which side is what matters."""
    if digits == 0 and any(round(100 * bound) == 50 for bound in (low, high)):
        digits = 1
    return f"{percent(rate, digits)} [{number(100 * low, digits)},{NARROW}{number(100 * high, digits)}]"


def interval_apart(rate: float, low: float, high: float, digits: int = 0) -> tuple[str, str]:
    """The same in two cells: "78 %" and "[71, 84]"."""
    shown, bounds = interval(rate, low, high, digits).split(" [", 1)
    return shown, f"[{bounds}"


def turning_point(whose: str, curve: Mapping[str, Any]) -> str:
    """Where a fitted curve of score against distance turns down, and what it doesn't show; "" where there is none."""
    peak = [f"it peaks at KL {number(curve['peak_kl'], 1)}"] if curve.get("peak_inside") else []
    clauses = [*peak, *curve.get("caveats", [])]
    return f"{whose} fitted curve: {'; '.join(clauses)}." if clauses else ""


def under(figures: Mapping[str, Any], head: str) -> dict[str, Any]:
    """The figures whose key begins with `head`, without it."""
    return {key.removeprefix(head): value for key, value in figures.items() if key.startswith(head)}


def duration(seconds: float | None) -> str:
    """4 → "4.0 s"; 260 → "4 min 20 s"; 4300 → "1 h 12 min"."""
    if seconds is None:
        return DASH
    if seconds < 59.95:
        digits = 1 if seconds >= 0.95 else 3 if seconds < 0.01 else 2
        return f"{seconds:.{digits}f}{NARROW}s"
    if seconds < 3599.5:
        minutes, rest = divmod(round(seconds), 60)
        return f"{minutes}{NARROW}min {rest}{NARROW}s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours}{NARROW}h {minutes}{NARROW}min"


def megabytes(value: float | None) -> str:
    """556 → "556 MB"; 1240 → "1.2 GB"."""
    if value is None:
        return DASH
    return f"{value:.0f}{NARROW}MB" if value < 1000 else f"{value / 1000:.1f}{NARROW}GB"


def count(value: float | None) -> str:
    """4 882 432 → "4.9 million"; below a million in full."""
    if value is None:
        return DASH
    return f"{value / 1e6:.1f} million" if value >= 1e6 else f"{value:,.0f}"


def local_paths_shortened(value: Any) -> Any:
    """The same structure with absolute paths cut to their last part: reports are passed on."""
    if isinstance(value, dict):
        return {key: local_paths_shortened(item) for key, item in value.items()}
    if isinstance(value, list):
        return [local_paths_shortened(item) for item in value]
    if isinstance(value, str) and (value.startswith("~") or PurePosixPath(value).is_absolute()):
        return f"…/{PurePosixPath(value).name}"
    if isinstance(value, str) and PureWindowsPath(value).is_absolute():
        return f"…/{PureWindowsPath(value).name}"
    return value
