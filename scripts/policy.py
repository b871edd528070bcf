"""`align policy`, as a file: for `accelerate launch scripts/policy.py CONFIG [KEY=VALUE]...`."""

import sys

from pipeline.cli import main

if __name__ == "__main__":
    main(["policy", *sys.argv[1:]])
