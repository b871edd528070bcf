"""`python -m pipeline.cli` is `align`."""

from pipeline.cli import main

main()
