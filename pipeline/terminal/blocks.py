"""Small histograms that fit into a table's cell."""

from collections.abc import Sequence

BLOCKS = " ▁▂▃▄▅▆▇█"


def blocks(counts: Sequence[int]) -> str:
    """Counts as a line of blocks; what isn't empty is at least the lowest block."""
    top = max(counts)
    return "".join(BLOCKS[-(-count * (len(BLOCKS) - 1) // top)] for count in counts)
