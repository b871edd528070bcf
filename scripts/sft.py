"""`align sft`, as a file: for `accelerate launch scripts/sft.py CONFIG [KEY=VALUE]...`."""

import sys

from pipeline.cli import main

if __name__ == "__main__":
    main(["sft", *sys.argv[1:]])
