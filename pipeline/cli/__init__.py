"""`align`, the command line: reads arguments, calls what does the work, prints. Heavy imports wait until needed."""

from pipeline.cli.app import main

__all__ = ["main"]
