"""`align evaluate`, as a file: for `accelerate launch scripts/evaluate.py CONFIG [KEY=VALUE]...`."""

import sys

from pipeline.cli import main

if __name__ == "__main__":
    main(["evaluate", *sys.argv[1:]])
