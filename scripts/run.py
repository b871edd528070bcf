"""`align run`, as a file: all stages and the report."""

import sys

from pipeline.cli import main

if __name__ == "__main__":
    main(["run", *sys.argv[1:]])
