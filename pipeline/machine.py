"""The machine under a run: its memory's peak, its versions."""

import contextlib
import os
import platform
import resource
import sys
from importlib import metadata
from pathlib import Path


def reset_peak_rss() -> None:
    """Start a new measurement of peak memory, where the system can (Linux); elsewhere the peak is the process's."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_rss_mb() -> float:
    """Peak resident memory in MB (10⁶ bytes) since `reset_peak_rss`."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024 / 1e6
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6


def environment(device: str, dtype: str) -> dict[str, str]:
    """Versions and machine, for the report. No host name, no path."""
    packages = ("torch", "transformers", "peft", "trl", "datasets", "accelerate")
    versions = {name: metadata.version(name) for name in packages}
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cpu_cores": str(os.cpu_count()),
        "device": device,
        "dtype": dtype,
        **versions,
    }
