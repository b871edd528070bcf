"""`align dpo`, as a file: for `accelerate launch scripts/dpo.py CONFIG [KEY=VALUE]...`."""

import sys

from pipeline.cli import main

if __name__ == "__main__":
    main(["dpo", *sys.argv[1:]])
