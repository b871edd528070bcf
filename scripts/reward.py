"""`align reward`, as a file: for `accelerate launch scripts/reward.py CONFIG [KEY=VALUE]...`."""

import sys

from pipeline.cli import main

if __name__ == "__main__":
    main(["reward", *sys.argv[1:]])
